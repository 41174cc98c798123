#include "server/http/http_message.h"

#include <ctime>

#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

void AppendHeader(absl::string_view name, absl::string_view value, std::string* out) {
  absl::StrAppend(out, name, ": ");
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    out->push_back(byte < 0x20 || byte == 0x7f ? ' ' : c);
  }
  out->append("\r\n");
}

std::string HttpDate() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[40];
  const size_t size = std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return {text, size};
}

}  // namespace

absl::string_view HttpRequest::path() const {
  const absl::string_view text = target;
  return text.substr(0, text.find_first_of("?#"));
}

absl::string_view HttpRequest::Header(absl::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) {
      return value;
    }
  }
  return {};
}

absl::string_view ReasonPhrase(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

std::string SerializeHead(const HttpResponse& response, BodyFraming framing,
                          HttpRequest::Connection connection) {
  std::string out =
      absl::StrCat("HTTP/1.1 ", response.status, " ", ReasonPhrase(response.status), "\r\n");
  AppendHeader("date", HttpDate(), &out);
  for (const auto& [name, value] : response.headers) {
    AppendHeader(name, value, &out);
  }
  if (framing == BodyFraming::kLength) {
    AppendHeader("content-length", absl::StrCat(response.body.size()), &out);
  } else if (framing == BodyFraming::kChunked) {
    AppendHeader("transfer-encoding", "chunked", &out);
  }
  const bool close =
      connection == HttpRequest::Connection::kClose || framing == BodyFraming::kClose;
  AppendHeader("connection", close ? "close" : "keep-alive", &out);
  out.append("\r\n");
  return out;
}

std::string EncodeChunk(absl::string_view data) {
  if (data.empty()) {
    return {};
  }
  return absl::StrCat(absl::Hex(data.size()), "\r\n", data, "\r\n");
}

std::string SseEvent(absl::string_view data) { return absl::StrCat("data: ", data, "\n\n"); }

std::string SseComment(absl::string_view text) { return absl::StrCat(": ", text, "\n\n"); }

}  // namespace tessera::server
