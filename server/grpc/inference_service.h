// tessera.v1.InferenceService over the callback API.
#pragma once

#include <memory>

#include "server/core/frontend.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace tessera::server {

// `frontend` outlives the service and every call of it.
[[nodiscard]] std::shared_ptr<grpc::Service> MakeInferenceService(Frontend* frontend);

}  // namespace tessera::server
