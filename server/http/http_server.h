// An HTTP/1.1 server of one address: a few threads for all connections, limits before memory, one
// outstanding write a connection.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "config/foundation/clock.h"
#include "config/foundation/status.h"
#include "server/http/http_message.h"

namespace tessera::server {

// Who answers one request over several events. Called on the connection's strand only, never after
// OnClosed.
class ExchangeObserver {
 public:
  virtual ~ExchangeObserver() = default;
  // The last write has reached the socket: the next one may be made.
  virtual void OnWritable() = 0;
  // Nothing was sent for the server's ping interval, and a write may be made.
  virtual void OnIdle() = 0;
  // The client has gone, or the response is complete. Nothing may be sent any more.
  virtual void OnClosed() = 0;
};

// One request and its response. Everything but Post must be called on the connection's strand: from
// the handler, an observer, or a posted function. A response is either one `Respond`, or `Begin`,
// writes, and `Finish`; `Abort` closes the connection in the middle, which a client sees.
class Exchange {
 public:
  virtual ~Exchange() = default;
  [[nodiscard]] virtual const HttpRequest& request() const = 0;
  virtual void Respond(HttpResponse response) = 0;
  // Sends the head of a streamed response (`head.body` is empty). Counts as a write.
  virtual void Begin(HttpResponse head) = 0;
  // No write is under way. Writing without asking is allowed, but asking first bounds the memory.
  [[nodiscard]] virtual bool writable() const = 0;
  virtual void Write(std::string data) = 0;
  virtual void Finish() = 0;
  virtual void Abort() = 0;
  [[nodiscard]] virtual bool closed() const = 0;
  // At most one; set within the handler. Dropped when the exchange closes.
  virtual void Observe(std::shared_ptr<ExchangeObserver> observer) = 0;
  // Runs `work` on the strand, later; dropped once the server has stopped. Any thread.
  virtual void Post(std::function<void()> work) = 0;
};

class HttpServer {
 public:
  struct Options {
    std::string address = "127.0.0.1:8080";  // HOST:PORT, [IPV6]:PORT; port 0 takes a free one
    std::string name = "http";               // in logs
    HttpLimits limits;
    int threads = 2;
    size_t max_connections = 1024;                        // above: 503 and close
    Duration idle_timeout = std::chrono::seconds(75);     // between requests
    Duration request_timeout = std::chrono::seconds(60);  // from a request's first byte to its last
    Duration write_timeout = std::chrono::seconds(60);    // a write that makes no progress
    Duration ping_interval = std::chrono::seconds(15);    // see ExchangeObserver::OnIdle; 0: off
    // What a client reads that sent no request, or too large, slow or many ones. Any thread.
    std::function<HttpResponse(int status, const std::string& why)> refusal;  // null: plain text
  };
  // Called on a connection's strand; it must not block.
  using Handler = std::function<void(const std::shared_ptr<Exchange>&)>;

  // INVALID_ARGUMENT for an address that cannot be read, UNAVAILABLE for one that cannot be bound.
  [[nodiscard]] static StatusOr<std::unique_ptr<HttpServer>> Start(const Options& options,
                                                                   Handler handler);
  // Stops at once.
  ~HttpServer();

  [[nodiscard]] int port() const;
  [[nodiscard]] size_t connections() const;

  // Accepts no connection any more and closes those without a request; running requests go on, and
  // their connections close after them. Any thread.
  void CloseListener();
  // CloseListener; waits until the running requests are answered, but not past `until`; closes
  // everything and returns when no thread of the server runs. Not from a handler.
  void Stop(TimePoint until);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::server
