// The HTTP/1.1 request parser: any bytes give the same requests, whole or in pieces, within limits.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/http/request_parser.h"

namespace {

using tessera::server::HttpLimits;
using tessera::server::HttpRequest;
using tessera::server::RequestParser;

HttpLimits Limits() {
  HttpLimits limits;
  limits.max_body_bytes = 256;
  limits.max_headers = 16;
  limits.max_header_bytes = 1024;
  limits.max_target_bytes = 128;
  return limits;
}

void CheckWithinLimits(const HttpRequest& request, const HttpLimits& limits) {
  size_t bytes = 0;
  for (const auto& [name, value] : request.headers) bytes += name.size() + value.size();
  if (request.body.size() > limits.max_body_bytes || request.headers.size() > limits.max_headers ||
      bytes > limits.max_header_bytes || request.target.size() > limits.max_target_bytes) {
    std::abort();
  }
}

// The requests that a connection would see, as text, when `piece` bytes arrive at a time.
std::string Read(absl::string_view data, size_t piece) {
  const HttpLimits limits = Limits();
  RequestParser parser(limits);
  std::string seen;
  std::string buffer;
  size_t at = 0;
  while (true) {
    size_t consumed = 0;
    const RequestParser::State state = parser.Feed(buffer, &consumed);
    if (consumed > buffer.size()) std::abort();
    buffer.erase(0, consumed);
    if (state == RequestParser::State::kFailed) {
      if (parser.failure().status < 400 || parser.failure().message.empty()) std::abort();
      // When a fault is noticed may depend on how much had come; that the rest is no request, not.
      return seen;
    }
    if (state == RequestParser::State::kComplete) {
      const HttpRequest request = parser.Take();
      CheckWithinLimits(request, limits);
      absl::StrAppend(&seen, request.method, " ", request.path(), " ", request.headers.size(), " ",
                      request.body, "\n");
      continue;
    }
    if (at >= data.size()) return seen;
    const size_t size = std::min(piece, data.size() - at);
    buffer.append(data.data() + at, size);
    at += size;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string whole = Read(bytes, size + 1);
  if (Read(bytes, 1) != whole || Read(bytes, 7) != whole) std::abort();
  return 0;
}
