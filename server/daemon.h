// The daemon: everything put together, from settings to listening addresses, and its life until a
// signal.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "config/loader.h"
#include "config/settings.h"
#include "server/core/frontend.h"
#include "server/http/http_server.h"

namespace tessera::server {

struct DaemonOptions {
  std::shared_ptr<const Settings> settings;
  // Where the settings came from, for reloads.
  std::string config_path;
  Overrides overrides;
  // Makes what answers on the HTTP address, but for /health, which the daemon answers. The frontend
  // outlives the handler. Unset: nothing else is served there.
  std::function<HttpServer::Handler(Frontend* frontend, SettingsStore* settings)> http_api;
};

// Serves until SIGTERM or SIGINT has drained it (or a second one ended it); returns OK then. Blocks
// these signals and SIGHUP for the process: call it from the main thread, before other threads
// exist. Prints the memory plan, and once everything listens the line
//   tessera ready grpc=127.0.0.1:50051 http=127.0.0.1:8080 metrics=127.0.0.1:9400 admin=unix:PATH
// on standard output.
[[nodiscard]] Status RunDaemon(const DaemonOptions& options);

}  // namespace tessera::server
