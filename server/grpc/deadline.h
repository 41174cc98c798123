// A call's deadline on the program's clock. Only for sources that see gRPC.
#pragma once

#include <grpcpp/server_context.h>

#include <optional>

#include "config/foundation/clock.h"

namespace tessera::server {

// Unset when the client gave none (or one of more than a year).
[[nodiscard]] inline std::optional<TimePoint> DeadlineOf(const grpc::ServerContextBase& context) {
  const auto left = context.deadline() - std::chrono::system_clock::now();
  if (left > std::chrono::hours(24 * 366)) return std::nullopt;
  return std::chrono::steady_clock::now() + left;
}

}  // namespace tessera::server
