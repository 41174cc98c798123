// Any body to a spec: what is taken is valid, what is refused is told in JSON.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "config/foundation/text.h"
#include "server/http/openai_embeddings.h"
#include "server/http/openai_request.h"

namespace {

using namespace tessera::server;

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckSpec(const GenerationSpec& spec, const SpecLimits& limits) {
  Require(ValidateSpec(spec, limits).ok());
  Require(!tessera::FindInvalidUtf8(spec.prompt.text));
  if (!spec.chat) return;
  for (const MessageSpec& message : spec.chat->messages) {
    Require(!tessera::FindInvalidUtf8(message.content));
  }
  for (const std::string& json : {spec.chat->tools_json, spec.chat->template_args_json}) {
    Require(json.empty() || nlohmann::json::accept(json));
  }
}

void Parse(OpenAiEndpoint endpoint, absl::string_view body) {
  const SpecLimits limits;
  const auto request = ParseOpenAiRequest(endpoint, body, limits);
  if (request.ok()) {
    Require(!request->specs.empty());
    for (const GenerationSpec& spec : request->specs) CheckSpec(spec, limits);
    return;
  }
  const HttpResponse response = OpenAiErrorResponse(request.status(), endpoint);
  Require(response.status == 400);
  const nlohmann::json error = nlohmann::json::parse(response.body, nullptr, false);
  Require(error.is_object() && error["error"]["message"].is_string() &&
          !error["error"]["message"].get<std::string>().empty());
}

void ParseEmbeddings(absl::string_view body) {
  const SpecLimits limits;
  const auto request = ParseEmbeddingsRequest(body, limits);
  if (!request.ok()) {
    Require(OpenAiErrorResponse(request.status(), OpenAiEndpoint::kCompletions).status == 400);
    return;
  }
  Require(!request->specs.empty());
  for (const GenerationSpec& spec : request->specs) {
    CheckSpec(spec, limits);
    Require(spec.embedding.has_value());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view body(reinterpret_cast<const char*>(data), size);
  Parse(OpenAiEndpoint::kCompletions, body);
  Parse(OpenAiEndpoint::kChat, body);
  ParseEmbeddings(body);
  return 0;
}
