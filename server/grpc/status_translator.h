// A failure as gRPC carries it: code, message, and google.rpc details in the trailer.
#pragma once

#include <string>

#include "config/foundation/status.h"

namespace grpc {
class Status;
}  // namespace grpc

namespace tessera::server {

// The trailer stays under 4 KiB whatever the failure holds. `request_id` may be empty.
[[nodiscard]] grpc::Status ToGrpc(const Status& status, const std::string& request_id);

// The serialized google.rpc.Status of the same; never longer than kMaxDetailBytes, which are 4,000
// as the Base64 that may travel.
inline constexpr size_t kMaxDetailBytes = 3000;
[[nodiscard]] std::string DetailsOf(const Status& status, const std::string& request_id);

}  // namespace tessera::server
