// The address that a server listens on, as the sockets library wants it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <string>

#include "config/foundation/status.h"

namespace tessera::server {

// UNAVAILABLE: nothing can listen on `address`, for the reason `why`.
[[nodiscard]] Status AddressError(const std::string& address, const std::string& why);

// Of HOST:PORT or [IPV6]:PORT; the first address of a host name. INVALID_ARGUMENT when it cannot be
// read, UNAVAILABLE when the host is unknown. May ask a name server, and wait.
[[nodiscard]] StatusOr<boost::asio::ip::tcp::endpoint> ResolveEndpoint(boost::asio::io_context& io,
                                                                       const std::string& address);

}  // namespace tessera::server
