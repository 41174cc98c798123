// grpc.reflection.v1 over this program's own descriptors; the library's plugin serves v1alpha.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace grpc {
class Service;
}  // namespace grpc

namespace tessera::server {

// `services` are the full names that are listed; files are found by any symbol.
[[nodiscard]] std::shared_ptr<grpc::Service> MakeReflectionService(
    std::vector<std::string> services);

}  // namespace tessera::server
