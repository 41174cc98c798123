// "HOST:PORT" as text.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::server {

struct HostPort {
  std::string host;  // without the brackets of an IPv6 address
  uint16_t port = 0;
};

// INVALID_ARGUMENT with the accepted form.
[[nodiscard]] StatusOr<HostPort> ParseHostPort(absl::string_view address);

}  // namespace tessera::server
