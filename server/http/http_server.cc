#include "server/http/http_server.h"

#ifdef __SANITIZE_THREAD__
// GCC's ThreadSanitizer does not see Asio's fences, and says so for each.
#pragma GCC diagnostic ignored "-Wtsan"
#endif

#include <algorithm>
#include <atomic>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_set>

#include "absl/strings/str_cat.h"
#include "config/foundation/log.h"
#include "server/http/endpoint.h"
#include "server/http/request_parser.h"

namespace tessera::server {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = asio::ip::tcp;
using Strand = asio::strand<asio::io_context::executor_type>;

class Connection;

// What connections share; whoever may still post to the strands holds it.
struct Shared {
  HttpServer::Options options;
  HttpServer::Handler handler;
  asio::io_context io;
  std::atomic<bool> closing{false};
  std::atomic<size_t> count{0};
  std::mutex mutex;
  std::unordered_set<Connection*> connections;  // guarded by mutex
  bool stopped = false;                         // guarded by mutex: no thread runs `io`
};

using Connecting = HttpRequest::Connection;

// One request on a connection; forwards to the connection while that lives.
class ConnectionExchange final : public Exchange {
 public:
  ConnectionExchange(std::shared_ptr<Shared> shared, std::shared_ptr<Connection> connection,
                     Strand strand, HttpRequest request)
      : shared_(std::move(shared)),
        connection_(std::move(connection)),
        strand_(std::move(strand)),
        request_(std::move(request)) {}

  const HttpRequest& request() const override { return request_; }
  void Respond(HttpResponse response) override;
  void Begin(HttpResponse head) override;
  bool writable() const override;
  void Write(std::string data) override;
  void Finish() override;
  void Abort() override;
  bool closed() const override { return connection_ == nullptr; }
  void Observe(std::shared_ptr<ExchangeObserver> observer) override {
    observer_ = std::move(observer);
  }
  void Post(std::function<void()> work) override {
    const std::scoped_lock lock(shared_->mutex);
    if (!shared_->stopped) {
      asio::post(strand_, std::move(work));
    }
  }

  [[nodiscard]] ExchangeObserver* observer() const { return observer_.get(); }
  // The connection has no more to do with this exchange.
  void Detach() {
    connection_.reset();
    const std::shared_ptr<ExchangeObserver> observer = std::move(observer_);
    observer_.reset();
    if (observer != nullptr) {
      observer->OnClosed();
    }
  }

 private:
  std::shared_ptr<Shared> shared_;
  std::shared_ptr<Connection> connection_;
  Strand strand_;
  HttpRequest request_;
  std::shared_ptr<ExchangeObserver> observer_;
  BodyFraming framing_ = BodyFraming::kLength;
};

// All bytes of the answer to a client whose connection is then closed.
std::string RefusalOf(const HttpServer::Options& options, int status, const std::string& why) {
  HttpResponse response;
  if (options.refusal) {
    response = options.refusal(status, why);
  } else {
    response.headers = {{"content-type", "text/plain; charset=utf-8"}};
    response.body = why + "\n";
  }
  response.status = status;
  if (status == 503) response.headers.emplace_back("retry-after", "1");
  return SerializeHead(response, BodyFraming::kLength, Connecting::kClose) + response.body;
}

// A client's connection. All of it runs on its strand.
class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Shared> shared, tcp::socket socket)
      : shared_owner_(std::move(shared)),
        shared_(*shared_owner_),
        strand_(asio::make_strand(shared_.io)),
        socket_(std::move(socket)),
        timer_(strand_),
        parser_(shared_.options.limits) {
    shared_.count.fetch_add(1);
    const std::scoped_lock lock(shared_.mutex);
    shared_.connections.insert(this);
  }

  ~Connection() {
    {
      const std::scoped_lock lock(shared_.mutex);
      shared_.connections.erase(this);
    }
    shared_.count.fetch_sub(1);
  }

  void Start() {
    asio::dispatch(strand_, [self = shared_from_this()] {
      self->Arm(self->shared_.options.idle_timeout);
      self->Parse();
    });
  }

  void CloseIfIdle() {
    asio::post(strand_, [self = shared_from_this()] {
      if (self->exchange_ == nullptr && !self->parser_.started() && !self->writing_) {
        self->Close();
      }
    });
  }

  void CloseSoon() {
    asio::post(strand_, [self = shared_from_this()] { self->Close(); });
  }

  [[nodiscard]] bool writing() const { return writing_; }
  [[nodiscard]] Connecting connecting() const {
    return keep_alive_ && !shared_.closing.load() ? Connecting::kKeepAlive : Connecting::kClose;
  }
  void CloseAfterWrites() { keep_alive_ = false; }

  // Appends to what is written; one write is under way at a time.
  void Send(std::string bytes) {
    if (closed_ || bytes.empty()) {
      return;
    }
    queued_.append(bytes);
    WriteQueued();
  }

  // The exchange has sent its last byte.
  void EndExchange() {
    ending_ = true;
    if (!writing_) {
      AfterExchange();
    }
  }

  void Close() {
    if (closed_) {
      return;
    }
    closed_ = true;
    timer_.cancel();
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_both, ignored);
    socket_.close(ignored);
    if (exchange_ != nullptr) {
      std::exchange(exchange_, nullptr)->Detach();
    }
  }

 private:
  static constexpr size_t kReadBytes = 16 << 10;

  void Parse() {
    if (closed_ || exchange_ != nullptr) {
      return;
    }
    size_t consumed = 0;
    const RequestParser::State state = parser_.Feed(received_, &consumed);
    received_.erase(0, consumed);
    switch (state) {
      case RequestParser::State::kNeedMore:
        if (parser_.TakeContinue()) {
          Send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        if (!parser_.started() && received_.empty()) {
          request_timer_armed_ = false;
        } else if (!request_timer_armed_) {
          request_timer_armed_ = true;
          Arm(shared_.options.request_timeout);
        }
        return Read();
      case RequestParser::State::kFailed:
        return Refuse(parser_.failure().status, parser_.failure().message);
      case RequestParser::State::kComplete:
        return Handle(parser_.Take());
    }
  }

  void Handle(HttpRequest request) {
    request_timer_armed_ = false;
    keep_alive_ = request.connection == Connecting::kKeepAlive;
    exchange_ = std::make_shared<ConnectionExchange>(shared_owner_, shared_from_this(), strand_,
                                                     std::move(request));
    Arm(shared_.options.ping_interval);
    Read();  // notices a client that leaves
    const std::shared_ptr<ConnectionExchange> exchange = exchange_;
    shared_.handler(exchange);
  }

  // Says what is wrong with bytes that are no request, and closes.
  void Refuse(int status, const std::string& message) {
    keep_alive_ = false;
    Send(RefusalOf(shared_.options, status, message));
    EndExchange();
  }

  void Read() {
    // While a request is answered, only a little of the next ones is taken in.
    if (closed_ || reading_ || (exchange_ != nullptr && received_.size() >= kReadBytes)) {
      return;
    }
    reading_ = true;
    socket_.async_read_some(
        asio::buffer(read_buffer_),
        asio::bind_executor(strand_, [self = shared_from_this()](error_code ec, size_t size) {
          self->reading_ = false;
          if (ec) {
            return self->Close();
          }
          if (self->draining_) {
            return self->Discard();
          }
          self->received_.append(self->read_buffer_.data(), size);
          if (self->exchange_ == nullptr) {
            self->Parse();
          } else {
            self->Read();
          }
        }));
  }

  void WriteQueued() {
    if (writing_ || queued_.empty()) {
      return;
    }
    writing_ = true;
    sending_.clear();
    std::swap(sending_, queued_);
    Arm(shared_.options.write_timeout);
    asio::async_write(
        socket_, asio::buffer(sending_),
        asio::bind_executor(
            strand_, [self = shared_from_this()](error_code ec, size_t) { self->OnWritten(ec); }));
  }

  void OnWritten(error_code ec) {
    writing_ = false;
    if (closed_) {
      return;
    }
    if (ec) {
      return Close();
    }
    if (!queued_.empty()) {
      return WriteQueued();
    }
    if (ending_) {
      return AfterExchange();
    }
    if (exchange_ != nullptr) {
      Arm(shared_.options.ping_interval);
      if (ExchangeObserver* const observer = exchange_->observer()) {
        observer->OnWritable();
      }
    }
  }

  void AfterExchange() {
    ending_ = false;
    if (exchange_ != nullptr) {
      std::exchange(exchange_, nullptr)->Detach();
    }
    if (connecting() == Connecting::kClose) {
      return ShutdownGently();
    }
    Arm(shared_.options.idle_timeout);
    asio::post(strand_, [self = shared_from_this()] { self->Parse(); });
  }

  // Lets the client read the response before a reset for unread bytes could destroy it.
  void ShutdownGently() {
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    Arm(std::chrono::seconds(2));
    draining_ = true;
    Discard();
  }

  void Discard() {
    if (closed_ || reading_) {
      return;
    }
    received_.clear();
    reading_ = true;
    socket_.async_read_some(
        asio::buffer(read_buffer_),
        asio::bind_executor(strand_, [self = shared_from_this()](error_code ec, size_t) {
          self->reading_ = false;
          ec ? self->Close() : self->Discard();
        }));
  }

  // One timer serves all waits: what it means when it fires follows from the state.
  void Arm(Duration after) {
    if (after <= Duration::zero()) {  // pings are off
      ++round_;
      timer_.cancel();
      return;
    }
    timer_.expires_after(after);
    timer_.async_wait(
        asio::bind_executor(strand_, [self = shared_from_this(), round = ++round_](error_code ec) {
          if (!ec && round == self->round_ && !self->closed_) {
            self->OnTimer();
          }
        }));
  }

  void OnTimer() {
    if (writing_ || draining_) {
      return Close();  // the client does not read
    }
    if (exchange_ != nullptr) {
      Arm(shared_.options.ping_interval);
      if (ExchangeObserver* const observer = exchange_->observer()) {
        observer->OnIdle();
      }
      return;
    }
    if (request_timer_armed_) {
      return Refuse(408, "the request did not arrive in time");
    }
    Close();
  }

  std::shared_ptr<Shared> shared_owner_;
  Shared& shared_;
  Strand strand_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  uint64_t round_ = 0;
  RequestParser parser_;
  std::array<char, kReadBytes> read_buffer_;
  std::string received_;  // not consumed by the parser
  std::string queued_, sending_;
  std::shared_ptr<ConnectionExchange> exchange_;
  bool reading_ = false;
  bool writing_ = false;
  bool ending_ = false;
  bool draining_ = false;
  bool closed_ = false;
  bool keep_alive_ = true;
  bool request_timer_armed_ = false;
};

void ConnectionExchange::Respond(HttpResponse response) {
  if (connection_ == nullptr) {
    return;
  }
  const bool head_only = request_.method == "HEAD";
  std::string bytes = SerializeHead(response, BodyFraming::kLength, connection_->connecting());
  if (!head_only) {
    bytes += response.body;
  }
  connection_->Send(std::move(bytes));
  connection_->EndExchange();
}

void ConnectionExchange::Begin(HttpResponse head) {
  if (connection_ == nullptr) {
    return;
  }
  framing_ = request_.version >= 11 ? BodyFraming::kChunked : BodyFraming::kClose;
  if (framing_ == BodyFraming::kClose) {
    connection_->CloseAfterWrites();
  }
  connection_->Send(SerializeHead(head, framing_, connection_->connecting()));
}

bool ConnectionExchange::writable() const {
  return connection_ != nullptr && !connection_->writing();
}

void ConnectionExchange::Write(std::string data) {
  if (connection_ != nullptr) {
    connection_->Send(framing_ == BodyFraming::kChunked ? EncodeChunk(data) : std::move(data));
  }
}

void ConnectionExchange::Finish() {
  if (connection_ == nullptr) {
    return;
  }
  if (framing_ == BodyFraming::kChunked) {
    connection_->Send(std::string(kLastChunk));
  }
  connection_->EndExchange();
}

void ConnectionExchange::Abort() {
  if (connection_ != nullptr) {
    connection_->Close();
  }
}

}  // namespace

struct HttpServer::Impl {
  std::shared_ptr<Shared> shared = std::make_shared<Shared>();
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work;
  std::optional<tcp::acceptor> acceptor;
  std::optional<Strand> accept_strand;
  std::optional<asio::steady_timer> accept_timer;
  std::vector<std::thread> threads;
  int port = 0;

  Status Listen() {
    const std::string& address = shared->options.address;
    TESSERA_ASSIGN_OR_RETURN(const tcp::endpoint endpoint, ResolveEndpoint(shared->io, address));
    accept_strand.emplace(asio::make_strand(shared->io));
    acceptor.emplace(*accept_strand);
    accept_timer.emplace(*accept_strand);
    error_code ec;
    acceptor->open(endpoint.protocol(), ec);
    if (!ec) {
      acceptor->set_option(asio::socket_base::reuse_address(true), ec);
    }
    if (!ec) {
      acceptor->bind(endpoint, ec);
    }
    if (!ec) {
      acceptor->listen(1024, ec);
    }
    if (ec) {
      return AddressError(address, ec.message());
    }
    port = acceptor->local_endpoint(ec).port();
    return absl::OkStatus();
  }

  void Accept() {
    acceptor->async_accept(
        shared->io, asio::bind_executor(*accept_strand, [this](error_code ec, tcp::socket socket) {
          if (ec == asio::error::operation_aborted || !acceptor->is_open()) {
            return;
          }
          if (ec) {
            LogWarning("http_accept_failed",
                       {{"listener", shared->options.name}, {"why", ec.message()}});
            // Out of descriptors, most likely: trying at once would spin.
            accept_timer->expires_after(std::chrono::milliseconds(100));
            accept_timer->async_wait(asio::bind_executor(*accept_strand, [this](error_code failed) {
              if (!failed) {
                Accept();
              }
            }));
            return;
          }
          Admit(std::move(socket));
          Accept();
        }));
  }

  void Admit(tcp::socket socket) {
    error_code ignored;
    if (shared->count.load() >= shared->options.max_connections) {
      socket.non_blocking(true, ignored);
      const std::string refusal =
          RefusalOf(shared->options, 503,
                    absl::StrCat("the server has ", shared->options.max_connections,
                                 " connections, its limit; try again when others have closed"));
      socket.write_some(asio::buffer(refusal), ignored);
      return;
    }
    socket.set_option(tcp::no_delay(true), ignored);
    std::make_shared<Connection>(shared, std::move(socket))->Start();
  }

  // Connections of this instant that have not begun to die.
  void ForEachConnection(const std::function<void(Connection&)>& visit) {
    std::vector<std::shared_ptr<Connection>> live;
    {
      const std::scoped_lock lock(shared->mutex);
      for (Connection* const connection : shared->connections) {
        if (std::shared_ptr<Connection> held = connection->weak_from_this().lock()) {
          live.push_back(std::move(held));
        }
      }
    }
    for (const std::shared_ptr<Connection>& connection : live) {
      visit(*connection);
    }
  }
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const Options& options, Handler handler) {
  auto impl = std::make_unique<Impl>();
  impl->shared->options = options;
  impl->shared->handler = std::move(handler);
  TESSERA_RETURN_IF_ERROR(impl->Listen());
  impl->work.emplace(impl->shared->io.get_executor());
  impl->Accept();
  for (int i = 0; i < std::max(1, options.threads); ++i) {
    impl->threads.emplace_back([io = &impl->shared->io] { io->run(); });
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::~HttpServer() { Stop(SystemClock().Now()); }

int HttpServer::port() const { return impl_->port; }

size_t HttpServer::connections() const { return impl_->shared->count.load(); }

void HttpServer::CloseListener() {
  if (impl_->shared->closing.exchange(true)) {
    return;
  }
  // On the strand of the acceptor, so that no connection can be admitted behind the sweep.
  asio::post(*impl_->accept_strand, [impl = impl_.get()] {
    error_code ignored;
    impl->acceptor->close(ignored);
    impl->accept_timer->cancel();
    impl->ForEachConnection([](Connection& connection) { connection.CloseIfIdle(); });
  });
}

void HttpServer::Stop(TimePoint until) {
  if (impl_->threads.empty()) {
    return;
  }
  CloseListener();
  while (connections() > 0 && SystemClock().Now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  asio::post(*impl_->accept_strand, [impl = impl_.get()] {
    impl->ForEachConnection([](Connection& connection) { connection.CloseSoon(); });
  });
  impl_->work.reset();
  // Closed connections have no operation left, so the threads run out of work; a handler that holds
  // an exchange keeps no thread.
  for (std::thread& thread : impl_->threads) {
    thread.join();
  }
  impl_->threads.clear();
  {
    const std::scoped_lock lock(impl_->shared->mutex);
    impl_->shared->stopped = true;
  }
  impl_->shared->io.restart();
  impl_->shared->io.poll();  // what was posted between the threads' end and the flag
}

}  // namespace tessera::server
