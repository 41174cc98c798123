#include "server/grpc/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/grpc/reflection_service.h"

namespace tessera::server {
namespace {

int Milliseconds(Duration duration) {
  return static_cast<int>(
      std::min<int64_t>(duration.count() / 1'000'000, std::numeric_limits<int>::max()));
}

void ApplyTransport(const GrpcServer::Options& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  builder->SetMaxSendMessageSize(-1);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_streams);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 8 << 10);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              Milliseconds(options.keepalive_timeout));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              Milliseconds(options.min_client_interval));
  if (options.max_connection_age > Duration::zero()) {
    // The library adds 10 % of jitter.
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                                Milliseconds(options.max_connection_age));
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                                Milliseconds(options.max_connection_grace));
  }
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS,
                              Milliseconds(options.max_connection_idle));
  // Two servers on one port would take turns answering.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  grpc::ResourceQuota quota("tessera");
  quota.Resize(options.max_memory_bytes);
  quota.SetMaxThreads(options.max_threads);
  builder->SetResourceQuota(quota);
}

}  // namespace

struct GrpcServer::Impl {
  std::vector<std::shared_ptr<grpc::Service>> services;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
  bool stopped = false;
};

GrpcServer::GrpcServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GrpcServer::~GrpcServer() { Stop(std::chrono::steady_clock::now()); }

StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(
    const Options& options, std::vector<std::shared_ptr<grpc::Service>> services,
    const std::vector<std::string>& service_names) {
  auto impl = std::make_unique<Impl>();
  impl->services = std::move(services);
  const bool extras = options.extras == Options::Extras::kHealthAndReflection;
  grpc::EnableDefaultHealthCheckService(extras);
  if (extras) {
    std::vector<std::string> listed = service_names;
    listed.emplace_back("grpc.health.v1.Health");
    listed.emplace_back("grpc.reflection.v1.ServerReflection");
    listed.emplace_back("grpc.reflection.v1alpha.ServerReflection");
    impl->services.push_back(MakeReflectionService(std::move(listed)));
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  }
  grpc::ServerBuilder builder;
  ApplyTransport(options, &builder);
  builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &impl->port);
  for (const auto& service : impl->services) builder.RegisterService(service.get());
  impl->server = builder.BuildAndStart();
  if (!impl->server) {
    return Error(absl::StatusCode::kUnavailable,
                 {absl::StrCat("cannot listen for gRPC on ", options.address),
                  "listen.grpc.address", "the address is in use, or not of this machine",
                  "end the program that uses it, or choose another address"});
  }
  if (absl::StartsWith(options.address, "unix:")) impl->port = 0;
  std::unique_ptr<GrpcServer> made(new GrpcServer(std::move(impl)));
  for (const std::string& name : service_names) made->SetHealth(name, Health::kServing);
  return made;
}

int GrpcServer::port() const { return impl_->port; }

void GrpcServer::SetHealth(const std::string& name, Health health) {
  if (auto* service = impl_->server->GetHealthCheckService()) {
    service->SetServingStatus(name, health == Health::kServing);
  }
}

void GrpcServer::Stop(TimePoint until) {
  if (std::exchange(impl_->stopped, true)) return;
  const auto left = until - std::chrono::steady_clock::now();
  impl_->server->Shutdown(std::chrono::system_clock::now() + left);
  impl_->server->Wait();
}

}  // namespace tessera::server
