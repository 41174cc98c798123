#include "server/http/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <mutex>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

using std::chrono::milliseconds;

// A blocking client of one connection.
class Client {
 public:
  explicit Client(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~Client() { Close(); }
  void Close() {
    if (fd_ >= 0) {
      close(fd_);
      fd_ = -1;
    }
  }
  void Send(const std::string& bytes) const {
    ASSERT_EQ(send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // Reads until `end` was seen, the connection ends, or 5 s have passed.
  std::string ReadUntil(const std::string& end) {
    std::string seen;
    while (seen.find(end) == std::string::npos) {
      pollfd waiting{fd_, POLLIN, 0};
      char buffer[4096];
      if (poll(&waiting, 1, 5000) <= 0) {
        ADD_FAILURE() << "nothing came after: " << seen;
        return seen;
      }
      const ssize_t size = recv(fd_, buffer, sizeof(buffer), 0);
      if (size <= 0) {
        return seen + "<end>";
      }
      seen.append(buffer, static_cast<size_t>(size));
    }
    return seen;
  }

 private:
  int fd_;
};

const std::string kGet = "GET /a HTTP/1.1\r\nhost: x\r\n\r\n";

HttpServer::Options Options() {
  HttpServer::Options options;
  options.address = "127.0.0.1:0";
  return options;
}

void Echo(const std::shared_ptr<Exchange>& exchange) {
  HttpResponse response;
  response.body = absl::StrCat(exchange->request().target, "|", exchange->request().body, "|end");
  exchange->Respond(std::move(response));
}

TEST(HttpServer, KeepsAConnectionAndAnswersInOrder) {
  auto server = HttpServer::Start(Options(), Echo);
  ASSERT_TRUE(server.ok()) << server.status();
  Client client((*server)->port());
  client.Send(kGet);
  EXPECT_TRUE(absl::StrContains(client.ReadUntil("|end"), "/a||end"));
  client.Send(
      "POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhiGET /c HTTP/1.1\r\nhost: x\r\n"
      "connection: close\r\n\r\n");
  const std::string both = client.ReadUntil("<never>");
  EXPECT_LT(both.find("/b|hi|end"), both.find("/c||end")) << both;
  EXPECT_TRUE(absl::EndsWith(both, "<end>"));
}

TEST(HttpServer, RefusesWhatIsNoRequestAndCloses) {
  auto server = HttpServer::Start(Options(), Echo);
  ASSERT_TRUE(server.ok());
  Client client((*server)->port());
  client.Send("hello\r\n\r\n");
  const std::string answer = client.ReadUntil("<never>");
  EXPECT_TRUE(absl::StartsWith(answer, "HTTP/1.1 400")) << answer;
  EXPECT_TRUE(absl::EndsWith(answer, "<end>"));
}

TEST(HttpServer, CapsConnections) {
  HttpServer::Options options = Options();
  options.max_connections = 1;
  auto server = HttpServer::Start(options, Echo);
  ASSERT_TRUE(server.ok());
  Client first((*server)->port());
  first.Send(kGet);
  first.ReadUntil("|end");
  Client second((*server)->port());
  EXPECT_TRUE(absl::StartsWith(second.ReadUntil("<never>"), "HTTP/1.1 503"));
}

TEST(HttpServer, ASlowRequestIsGivenUp) {
  HttpServer::Options options = Options();
  options.request_timeout = milliseconds(100);
  auto server = HttpServer::Start(options, Echo);
  ASSERT_TRUE(server.ok());
  Client client((*server)->port());
  client.Send("GET / HT");
  EXPECT_TRUE(absl::StartsWith(client.ReadUntil("<never>"), "HTTP/1.1 408"));
}

TEST(HttpServer, AnIdleConnectionIsClosed) {
  HttpServer::Options options = Options();
  options.idle_timeout = milliseconds(100);
  auto server = HttpServer::Start(options, Echo);
  ASSERT_TRUE(server.ok());
  Client client((*server)->port());
  EXPECT_EQ(client.ReadUntil("<never>"), "<end>");
}

// Writes numbered pieces, one for each OnWritable, until it is told to stop.
class Streamer final : public ExchangeObserver {
 public:
  Streamer(std::shared_ptr<Exchange> exchange, std::string piece)
      : exchange_(std::move(exchange)), piece_(std::move(piece)) {}
  void OnWritable() override {
    if (writes.fetch_add(1) + 1 < limit) {
      exchange_->Write(piece_);
    } else {
      exchange_->Finish();
    }
  }
  void OnIdle() override { idle.fetch_add(1); }
  void OnClosed() override { closed.set_value(); }

  int limit = 1'000'000;
  std::atomic<int> writes{0};
  std::atomic<int> idle{0};
  std::promise<void> closed;

 private:
  std::shared_ptr<Exchange> exchange_;
  std::string piece_;
};

struct StreamServer {
  std::shared_ptr<Streamer> streamer;
  std::promise<void> begun;
  std::unique_ptr<HttpServer> server;

  StreamServer(HttpServer::Options options, int limit, std::string piece) {
    auto started = HttpServer::Start(options, [=, this](const std::shared_ptr<Exchange>& exchange) {
      streamer = std::make_shared<Streamer>(exchange, piece);
      streamer->limit = limit;
      exchange->Observe(streamer);
      HttpResponse head;
      head.headers = {{"content-type", "text/event-stream"}};
      exchange->Begin(std::move(head));
      begun.set_value();
    });
    EXPECT_TRUE(started.ok());
    server = std::move(*started);
  }
};

TEST(HttpServer, StreamsInChunks) {
  StreamServer streams(Options(), 4, "data: x\n\n");
  Client client(streams.server->port());
  client.Send(kGet);
  const std::string answer = client.ReadUntil("0\r\n\r\n");
  EXPECT_TRUE(absl::StrContains(answer, "transfer-encoding: chunked")) << answer;
  EXPECT_TRUE(absl::EndsWith(answer,
                             "9\r\ndata: x\n\n\r\n9\r\ndata: x\n\n\r\n9\r\ndata: x\n\n\r\n"
                             "0\r\n\r\n"))
      << answer;
}

TEST(HttpServer, AClientThatLeavesClosesTheExchange) {
  StreamServer streams(Options(), 2, "");
  Client client(streams.server->port());
  client.Send(kGet);
  streams.begun.get_future().wait();
  client.Close();
  EXPECT_EQ(streams.streamer->closed.get_future().wait_for(std::chrono::seconds(5)),
            std::future_status::ready);
}

TEST(HttpServer, ASlowReaderStopsTheWriterAndIsDroppedInTheEnd) {
  HttpServer::Options options = Options();
  options.write_timeout = milliseconds(300);
  StreamServer streams(options, 1'000'000, std::string(64 << 10, 'x'));
  Client client(streams.server->port());
  client.Send(kGet);
  streams.begun.get_future().wait();
  EXPECT_EQ(streams.streamer->closed.get_future().wait_for(std::chrono::seconds(5)),
            std::future_status::ready);
  EXPECT_LT(streams.streamer->writes.load(), 1000) << "only the sockets' buffers were filled";
}

TEST(HttpServer, IdleStreamsAreToldSo) {
  HttpServer::Options options = Options();
  options.ping_interval = milliseconds(20);
  StreamServer streams(options, 2, "");
  Client client(streams.server->port());
  client.Send(kGet);
  streams.begun.get_future().wait();
  for (int i = 0; i < 200 && streams.streamer->idle.load() < 2; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_GE(streams.streamer->idle.load(), 2);
}

// Keeps the exchange of its one request.
struct HoldingServer {
  std::shared_ptr<Exchange> held;
  std::promise<void> handled;
  std::unique_ptr<HttpServer> server;

  HoldingServer() {
    auto started = HttpServer::Start(Options(), [this](const std::shared_ptr<Exchange>& exchange) {
      held = exchange;
      handled.set_value();
    });
    EXPECT_TRUE(started.ok());
    server = std::move(*started);
  }
};

TEST(HttpServer, PostRunsOnTheStrandAndIsDroppedAfterStop) {
  HoldingServer holding;
  std::shared_ptr<Exchange>& held = holding.held;
  Client client(holding.server->port());
  client.Send(kGet);
  holding.handled.get_future().wait();
  held->Post([held] {
    HttpResponse response;
    response.body = "posted";
    held->Respond(std::move(response));
  });
  EXPECT_TRUE(absl::StrContains(client.ReadUntil("posted"), "200 OK"));
  holding.server.reset();
  held->Post([] { FAIL() << "the server has stopped"; });
}

TEST(HttpServer, StoppingWaitsForAnswersButNotForever) {
  for (const bool answers : {true, false}) {
    HoldingServer holding;
    std::shared_ptr<Exchange>& held = holding.held;
    Client client(holding.server->port());
    client.Send(kGet);
    holding.handled.get_future().wait();
    std::thread stop([&] {
      holding.server->Stop(SystemClock().Now() +
                           (answers ? milliseconds(20000) : milliseconds(50)));
    });
    if (answers) {
      held->Post([held] {
        HttpResponse response;
        response.body = std::string(4 << 20, 'x') + "|end";
        held->Respond(std::move(response));
      });
      EXPECT_TRUE(absl::EndsWith(client.ReadUntil("|end"), "|end"));
    } else {
      EXPECT_EQ(client.ReadUntil("<never>"), "<end>");
    }
    client.Close();
    stop.join();
  }
}

TEST(HttpServer, RefusalsAreWordedByTheOwner) {
  HttpServer::Options options = Options();
  options.max_connections = 1;
  options.refusal = [](int status, const std::string& why) {
    HttpResponse response;
    response.body = absl::StrCat(status, " says the owner: ", why);
    return response;
  };
  auto server = HttpServer::Start(options, Echo);
  ASSERT_TRUE(server.ok());
  Client first((*server)->port());
  first.Send("hello\r\n\r\n");
  EXPECT_TRUE(absl::StrContains(first.ReadUntil("<never>"), "400 says the owner: "));
  first.Close();
  for (int i = 0; i < 500 && (*server)->connections() > 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  Client again((*server)->port());
  again.Send(kGet);
  again.ReadUntil("|end");
  Client second((*server)->port());
  const std::string answer = second.ReadUntil("<never>");
  EXPECT_TRUE(absl::StrContains(answer, "503 says the owner: ")) << answer;
  EXPECT_TRUE(absl::StrContains(answer, "retry-after: 1")) << answer;
}

TEST(HttpServer, ClosingTheListenerLetsARunningRequestEnd) {
  HoldingServer holding;
  std::shared_ptr<Exchange>& held = holding.held;
  Client idle(holding.server->port());
  Client busy(holding.server->port());
  busy.Send(kGet);
  holding.handled.get_future().wait();
  holding.server->CloseListener();
  EXPECT_EQ(idle.ReadUntil("<never>"), "<end>");
  held->Post([held] { Echo(held); });
  const std::string answer = busy.ReadUntil("<never>");
  EXPECT_TRUE(absl::StrContains(answer, "connection: close")) << answer;
  EXPECT_TRUE(absl::EndsWith(answer, "|end<end>")) << answer;
}

TEST(HttpServer, AnAddressInUseIsAnOperatorsError) {
  auto first = HttpServer::Start(Options(), Echo);
  ASSERT_TRUE(first.ok());
  HttpServer::Options options = Options();
  options.address = absl::StrCat("127.0.0.1:", (*first)->port());
  const auto second = HttpServer::Start(options, Echo);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  options.address = "nonsense";
  EXPECT_EQ(HttpServer::Start(options, Echo).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::server
