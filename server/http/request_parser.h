// Bytes of a connection to HTTP requests, within limits; knows nothing of sockets.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "server/http/http_message.h"

namespace tessera::server {

// One connection's parser. Usage: keep what was received and not consumed in one buffer, call
// `Feed` with it whenever bytes were added, drop what was consumed, and `Take` each complete
// request.
class RequestParser {
 public:
  enum class State {
    kNeedMore,  // feed again with what was not consumed, and more
    kComplete,  // Take() has the request
    kFailed,    // see failure(); the connection cannot go on
  };
  // Why a request was refused, with the HTTP status to say so.
  struct Failure {
    int status = 400;
    std::string message;
  };

  explicit RequestParser(const HttpLimits& limits);
  ~RequestParser();
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;

  // `consumed` bytes from the start of `data` are no longer needed.
  [[nodiscard]] State Feed(absl::string_view data, size_t* consumed);
  // After kComplete: the request; the parser then starts anew.
  [[nodiscard]] HttpRequest Take();
  // The client waits for "100 Continue" before it sends the body. True once for a request.
  [[nodiscard]] bool TakeContinue();
  // The request's first byte has come and its last has not.
  [[nodiscard]] bool started() const;
  [[nodiscard]] const Failure& failure() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::server
