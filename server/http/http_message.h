// HTTP/1.1 messages as values, apart from any connection.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera::server {

// What a request may take, checked before memory is taken for it.
struct HttpLimits {
  size_t max_body_bytes = 8 << 20;
  size_t max_headers = 64;
  size_t max_header_bytes = 16 << 10;  // request line and all headers
  size_t max_target_bytes = 4 << 10;
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   // upper case, as sent
  std::string target;   // as sent
  HttpHeaders headers;  // names in lower case
  std::string body;
  int version = 11;  // 10 or 11
  enum class Connection { kKeepAlive, kClose } connection = Connection::kKeepAlive;

  // The target without its query.
  [[nodiscard]] absl::string_view path() const;
  // The first value of header `name` (lower case); empty when absent.
  [[nodiscard]] absl::string_view Header(absl::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  HttpHeaders headers;  // without content-length, transfer-encoding, connection and date
  std::string body;
};

// The standard phrase of a status, "Unknown" for others.
[[nodiscard]] absl::string_view ReasonPhrase(int status);

enum class BodyFraming {
  kLength,   // content-length of `response.body`
  kChunked,  // the body follows in chunks
  kClose,    // the body ends with the connection
};

// Status line and headers with the empty line; control characters in header values become spaces.
[[nodiscard]] std::string SerializeHead(const HttpResponse& response, BodyFraming framing,
                                        HttpRequest::Connection connection);

// One chunk of a chunked body; empty `data` gives nothing (an empty chunk would end the body).
[[nodiscard]] std::string EncodeChunk(absl::string_view data);
// What ends a chunked body.
inline constexpr absl::string_view kLastChunk = "0\r\n\r\n";

// An event of a stream (bare LF): "data: <data>\n\n". `data` has no line ends.
[[nodiscard]] std::string SseEvent(absl::string_view data);
// A comment, which clients skip: ": <text>\n\n".
[[nodiscard]] std::string SseComment(absl::string_view text);

}  // namespace tessera::server
