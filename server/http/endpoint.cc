#include "server/http/endpoint.h"

#include "absl/strings/str_cat.h"
#include "server/http/host_port.h"

namespace tessera::server {

Status AddressError(const std::string& address, const std::string& why) {
  return Error(absl::StatusCode::kUnavailable,
               {.what = absl::StrCat("cannot listen on ", address),
                .why = why,
                .fix = "choose another address, or end what uses this one"});
}

StatusOr<boost::asio::ip::tcp::endpoint> ResolveEndpoint(boost::asio::io_context& io,
                                                         const std::string& address) {
  TESSERA_ASSIGN_OR_RETURN(const HostPort parts, ParseHostPort(address));
  boost::system::error_code ec;
  const boost::asio::ip::address literal = boost::asio::ip::make_address(parts.host, ec);
  if (!ec) {
    return boost::asio::ip::tcp::endpoint(literal, parts.port);
  }
  boost::asio::ip::tcp::resolver resolver(io);
  const auto found = resolver.resolve(parts.host, absl::StrCat(parts.port), ec);
  if (ec || found.empty()) {
    return AddressError(address, absl::StrCat("the host is unknown: ", ec.message()));
  }
  return found.begin()->endpoint();
}

}  // namespace tessera::server
