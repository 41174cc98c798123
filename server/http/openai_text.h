// POST /tokenize and /detokenize, as vLLM has them.
#pragma once

#include <memory>
#include <string>

#include "config/snapshot.h"
#include "server/core/frontend.h"
#include "server/http/http_server.h"

namespace tessera::server {

// {"model", "prompt", "add_special_tokens", "return_token_strs"}, or messages and what belongs to
// them instead of a prompt, to {"count", "max_model_len", "tokens", "token_strs"}. Both functions
// answer `exchange`, which they are called with in its handler.
void ServeTokenize(Frontend* frontend, const SettingsStore& settings,
                   const std::shared_ptr<Exchange>& exchange, const std::string& request_id);
// {"model", "tokens"} to {"prompt"}.
void ServeDetokenize(Frontend* frontend, const SettingsStore& settings,
                     const std::shared_ptr<Exchange>& exchange, const std::string& request_id);

}  // namespace tessera::server
