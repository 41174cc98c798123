// The daemon's listeners: gRPC, admin socket, HTTP, metrics.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "config/foundation/log.h"
#include "server/daemon_parts.h"
#include "server/grpc/admin_service.h"
#include "server/grpc/inference_service.h"
#include "server/http/host_port.h"
#include "server/http/openai_error.h"

namespace tessera::server {
namespace {

// `address` with the port that was taken.
std::string WithPort(const std::string& address, int port) {
  const size_t colon = address.rfind(':');
  if (port == 0 || colon == std::string::npos) return address;
  return absl::StrCat(address.substr(0, colon), ":", port);
}

// Whether somebody answers on the socket: a file alone may be left over.
bool SocketAnswers(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const bool answers =
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  close(fd);
  return answers;
}

HttpResponse TextResponse(int status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.headers.emplace_back("content-type", "text/plain; charset=utf-8");
  response.body = std::move(body);
  return response;
}

absl::string_view RefusalCode(int status) {
  if (status == 408) return "request_timeout";
  if (status == 413) return "request_too_large";
  if (status == 431) return "headers_too_large";
  if (status == 503) return "too_many_connections";
  return "malformed_request";
}

HttpServer::Options HttpOptions(const HttpSettings& settings) {
  HttpServer::Options options;
  options.address = settings.address;
  options.limits.max_body_bytes = static_cast<size_t>(settings.max_body.bytes);
  options.limits.max_headers = static_cast<size_t>(settings.max_headers);
  options.limits.max_header_bytes = static_cast<size_t>(settings.max_header_bytes.bytes);
  options.max_connections = static_cast<size_t>(settings.max_connections);
  options.ping_interval = settings.sse_ping;
  options.refusal = [](int status, const std::string& why) {
    return OpenAiRefusal(status, RefusalCode(status), why);
  };
  return options;
}

}  // namespace

Status DaemonParts::ListenGrpc(const Settings& settings) {
  const GrpcSettings& grpc = settings.listen.grpc;
  GrpcServer::Options options;
  options.address = grpc.address;
  options.max_message_bytes = static_cast<size_t>(grpc.max_message.bytes);
  options.max_streams = static_cast<int>(grpc.max_streams);
  options.keepalive_time = grpc.keepalive.time;
  options.keepalive_timeout = grpc.keepalive.timeout;
  options.min_client_interval = grpc.keepalive.min_client_interval;
  options.max_connection_age = grpc.max_connection_age;
  options.max_connection_grace = settings.limits.max_request_time;
  options.extras = GrpcServer::Options::Extras::kHealthAndReflection;
  TESSERA_ASSIGN_OR_RETURN(grpc_,
                           GrpcServer::Start(options, {MakeInferenceService(frontend_.get())},
                                             {"tessera.v1.InferenceService"}));
  grpc_address_ = WithPort(grpc.address, grpc_->port());
  models_->SetListener([this](const std::string& name, ModelState state) {
    grpc_->SetHealth(absl::StrCat("model/", name), state == ModelState::kReady
                                                       ? GrpcServer::Health::kServing
                                                       : GrpcServer::Health::kNotServing);
  });
  for (const ModelInfo& info : models_->List()) {
    grpc_->SetHealth(absl::StrCat("model/", info.name), info.state == ModelState::kReady
                                                            ? GrpcServer::Health::kServing
                                                            : GrpcServer::Health::kNotServing);
  }
  UpdateHealth();
  return absl::OkStatus();
}

Status DaemonParts::ListenAdmin(const Settings& settings) {
  std::string path(absl::StripPrefix(settings.listen.admin.address, "unix:"));
  const bool chosen = !path.empty();
  if (!chosen) path = absl::StrCat(zoo_->directory(), "/admin.sock");
  if (SocketAnswers(path)) {
    return Error(absl::StatusCode::kUnavailable,
                 {absl::StrCat("the admin socket ", path, " is in use"), "listen.admin.address",
                  "another daemon answers on it",
                  "end that daemon, or choose another listen.admin.address"});
  }
  AdminParts parts;
  parts.frontend = frontend_.get();
  parts.engine = engine_.get();
  parts.settings = settings_.get();
  parts.pool = pool_.get();
  parts.timer = timer_.get();
  parts.started = started_;
  parts.set_intake = [this](Frontend::Intake intake) { SetIntake(intake); };
  parts.reload = [this](ReloadMode mode) { return Reload(mode); };
  parts.weight_bytes = [this] { return binder_->LiveWeightBytes(); };
  GrpcServer::Options options;
  options.address = absl::StrCat("unix:", path);
  // The socket is never open to others, not even between its making and a chmod.
  const mode_t before = umask(0177);
  StatusOr<std::unique_ptr<GrpcServer>> server =
      GrpcServer::Start(options, {MakeAdminService(std::move(parts))}, {});
  umask(before);
  if (server.ok()) {
    admin_ = std::move(*server);
    admin_path_ = path;
    return absl::OkStatus();
  }
  if (chosen || zoo_->mode() != blockzoo::ZooMode::kReadOnly) {
    return Error(
        absl::StatusCode::kUnavailable,
        {absl::StrCat("cannot make the admin socket ", path), "listen.admin.address",
         "its folder is missing or may not be written, or its path is longer than 107 bytes",
         "set listen.admin.address to unix:PATH in a folder of your own"});
  }
  LogWarning("admin_off", {{"why", "the zoo is read-only"}, {"fix", "set listen.admin.address"}});
  return absl::OkStatus();
}

void DaemonParts::AnswerHealth(const std::shared_ptr<Exchange>& exchange) const {
  if (stalled_.load()) {
    exchange->Respond(TextResponse(503, "the engine makes no progress\n"));
  } else if (frontend_->intake() == Frontend::Intake::kDraining) {
    exchange->Respond(TextResponse(503, "draining\n"));
  } else {
    exchange->Respond(TextResponse(200, "ok\n"));
  }
}

Status DaemonParts::ListenHttp(const Settings& settings, const DaemonOptions& options) {
  if (settings.listen.http.address.empty()) return absl::OkStatus();
  HttpServer::Handler api;
  if (options.http_api) api = options.http_api(frontend_.get(), settings_.get());
  TESSERA_ASSIGN_OR_RETURN(
      http_, HttpServer::Start(HttpOptions(settings.listen.http),
                               [this, api](const std::shared_ptr<Exchange>& exchange) {
                                 if (exchange->request().path() == "/health") {
                                   AnswerHealth(exchange);
                                 } else if (api) {
                                   api(exchange);
                                 } else {
                                   exchange->Respond(TextResponse(404, "not found\n"));
                                 }
                               }));
  http_address_ = WithPort(settings.listen.http.address, http_->port());
  return absl::OkStatus();
}

Status DaemonParts::ListenMetrics(const Settings& settings) {
  if (settings.listen.metrics.address.empty()) return absl::OkStatus();
  HttpServer::Options options;
  options.address = settings.listen.metrics.address;
  options.name = "metrics";
  options.threads = 1;
  options.max_connections = 64;
  TESSERA_ASSIGN_OR_RETURN(
      metrics_, HttpServer::Start(options, [this](const std::shared_ptr<Exchange>& exchange) {
        if (exchange->request().path() != "/metrics") {
          exchange->Respond(TextResponse(404, "metrics are at /metrics\n"));
          return;
        }
        UpdateGauges();
        HttpResponse response = TextResponse(200, registry_.Scrape());
        response.headers[0].second = "text/plain; version=0.0.4; charset=utf-8";
        exchange->Respond(std::move(response));
      }));
  metrics_address_ = WithPort(settings.listen.metrics.address, metrics_->port());
  return absl::OkStatus();
}

Status DaemonParts::Listen(const DaemonOptions& options) {
  const Settings& settings = *options.settings;
  TESSERA_RETURN_IF_ERROR(ListenMetrics(settings));
  TESSERA_RETURN_IF_ERROR(ListenAdmin(settings));
  TESSERA_RETURN_IF_ERROR(ListenGrpc(settings));
  return ListenHttp(settings, options);
}

std::string DaemonParts::Addresses() const {
  std::string text = absl::StrCat("grpc=", grpc_address_);
  if (http_) absl::StrAppend(&text, " http=", http_address_);
  if (metrics_) absl::StrAppend(&text, " metrics=", metrics_address_);
  if (admin_) absl::StrAppend(&text, " admin=unix:", admin_path_);
  return text;
}

}  // namespace tessera::server
