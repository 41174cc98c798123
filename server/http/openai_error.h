// Errors as OpenAI clients read them.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "server/core/errors.h"
#include "server/http/http_message.h"

namespace tessera::server {

enum class OpenAiEndpoint : uint8_t { kCompletions, kChat };

// A field's path as a client of `endpoint` writes it: "sampling.top_p" is "top_p". A path that is
// already written so stays.
[[nodiscard]] std::string OpenAiFieldName(OpenAiEndpoint endpoint, absl::string_view path);

// {"error":{"message":…,"type":…,"param":…,"code":…}} on one line; the message names every field.
[[nodiscard]] std::string OpenAiErrorBody(const Status& status, OpenAiEndpoint endpoint);
// The same as a whole response, with its status and retry advice.
[[nodiscard]] HttpResponse OpenAiErrorResponse(const Status& status, OpenAiEndpoint endpoint);
// For what is wrong with the request as HTTP (404, 405, 415).
[[nodiscard]] HttpResponse OpenAiRefusal(int http_status, absl::string_view code,
                                         absl::string_view message);
// 200 with a JSON body.
[[nodiscard]] HttpResponse OpenAiJson(std::string body);

}  // namespace tessera::server
