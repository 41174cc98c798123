// The OpenAI-compatible HTTP interface: models, completions and chat, whole or as a stream of
// events; tokenize and detokenize beside it.
#pragma once

#include "config/snapshot.h"
#include "server/core/frontend.h"
#include "server/http/http_server.h"

namespace tessera::server {

// What answers every path but those that the daemon answers itself. Both outlive the handler and
// every exchange that it took.
[[nodiscard]] HttpServer::Handler MakeOpenAiApi(Frontend* frontend, SettingsStore* settings);

}  // namespace tessera::server
