// tessera.admin.v1.AdminService over the callback API.
#pragma once

#include <functional>
#include <memory>

#include "server/core/frontend.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace tessera::server {

// What the service acts on; all outlives the service and every call of it.
struct AdminParts {
  Frontend* frontend = nullptr;
  scheduler::Engine* engine = nullptr;
  SettingsStore* settings = nullptr;
  WorkPool* pool = nullptr;
  Timer* timer = nullptr;
  TimePoint started;
  // Opens or closes the intake and health with it.
  std::function<void(Frontend::Intake)> set_intake;
  std::function<ReloadOutcome(ReloadMode)> reload;
  std::function<uint64_t()> weight_bytes;  // of all live chains, each tensor once
};

[[nodiscard]] std::shared_ptr<grpc::Service> MakeAdminService(AdminParts parts);

}  // namespace tessera::server
