#include "server/http/host_port.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/text.h"

namespace tessera::server {

StatusOr<HostPort> ParseHostPort(absl::string_view address) {
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  absl::string_view host = address.substr(0, colon);
  const bool bracketed = absl::StartsWith(host, "[") && absl::EndsWith(host, "]");
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  if (colon == absl::string_view::npos || host.empty() ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port > 65535 ||
      (!bracketed && absl::StrContains(host, ':'))) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat(Quoted(address), " is not an address"),
                  .fix = "give HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080"});
  }
  return HostPort{std::string(host), static_cast<uint16_t>(port)};
}

}  // namespace tessera::server
