// Listening for gRPC: a port with limits, health and reflection around some services.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/foundation/clock.h"
#include "config/foundation/status.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace tessera::server {

class GrpcServer {
 public:
  struct Options {
    std::string address = "127.0.0.1:50051";  // HOST:PORT (0: a free one) or unix:PATH
    size_t max_message_bytes = 16 << 20;
    int max_streams = 1024;  // of one connection
    size_t max_memory_bytes = size_t{1} << 30;
    int max_threads = 64;
    Duration keepalive_time = std::chrono::seconds(60);
    Duration keepalive_timeout = std::chrono::seconds(20);
    Duration min_client_interval = std::chrono::seconds(10);
    Duration max_connection_age{};  // zero: without end
    Duration max_connection_grace = std::chrono::minutes(10);
    Duration max_connection_idle = std::chrono::minutes(15);
    enum class Extras : uint8_t { kNone, kHealthAndReflection } extras = Extras::kNone;
  };
  // `service_names` are listed by reflection and have health of their own. UNAVAILABLE when the
  // address cannot be listened on.
  [[nodiscard]] static StatusOr<std::unique_ptr<GrpcServer>> Start(
      const Options& options, std::vector<std::shared_ptr<grpc::Service>> services,
      const std::vector<std::string>& service_names);
  // Stops as Stop() with no time left.
  ~GrpcServer();

  [[nodiscard]] int port() const;  // 0 for a socket

  enum class Health : uint8_t { kServing, kNotServing };
  // Thread-safe. A name is unknown (NOT_FOUND) until it is set the first time.
  void SetHealth(const std::string& name, Health health);

  // Refuses new calls; those running have until `until`, then they are cancelled. Returns when none
  // is left.
  void Stop(TimePoint until);

 private:
  struct Impl;
  explicit GrpcServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::server
