// Serves one request for output: from the parsed body to the last byte of the answer.
#pragma once

#include <memory>
#include <string>

#include "server/core/frontend.h"
#include "server/http/http_server.h"
#include "server/http/openai_request.h"

namespace tessera::server {

// Answers `exchange`; to be called within its handler. A client that leaves ends its requests.
// `request_id` names the request in logs and in the response's headers, `answer_id` in the answer.
void ServeGeneration(Frontend* frontend, const std::shared_ptr<Exchange>& exchange,
                     OpenAiRequest request, const std::string& request_id,
                     const std::string& answer_id);

}  // namespace tessera::server
