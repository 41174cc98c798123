#include "server/http/openai_text.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "server/core/text_ops.h"
#include "server/http/openai_request.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

using OrderedJson = nlohmann::ordered_json;

struct TokenizeRequest {
  std::string model;
  PromptSpec prompt;
  std::optional<ChatSpec> chat;
  bool token_strings = false;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<TokenId> tokens;
};

std::string ReadModel(FieldReader* fields) {
  std::string model = fields->Text("model").value_or("");
  if (model.empty()) fields->Invalid("model", "must be set");
  return model;
}

StatusOr<TokenizeRequest> ParseTokenize(absl::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonBody(text));
  FieldErrors errors;
  FieldReader fields(body, "", &errors);
  TokenizeRequest request;
  request.model = ReadModel(&fields);
  if (fields.Find("messages") != nullptr && fields.Find("prompt") != nullptr) {
    fields.Invalid("prompt", "must not be set beside messages");
  } else if (fields.Find("messages") != nullptr) {
    request.chat = ReadChat(&fields, &errors);
  } else {
    std::optional<std::string> prompt = fields.Text("prompt");
    if (!prompt) fields.Invalid("prompt", "must be set: a string, or messages instead");
    request.prompt.input = PromptSpec::Input::kText;
    request.prompt.text = std::move(prompt).value_or("");
    request.prompt.add_special_tokens = fields.Flag("add_special_tokens");
  }
  request.token_strings = fields.Flag("return_token_strs").value_or(false);
  TESSERA_RETURN_IF_ERROR(std::move(errors).Finish());
  return request;
}

StatusOr<DetokenizeRequest> ParseDetokenize(absl::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonBody(text));
  FieldErrors errors;
  FieldReader fields(body, "", &errors);
  DetokenizeRequest request;
  request.model = ReadModel(&fields);
  if (fields.Find("tokens") == nullptr) fields.Invalid("tokens", "must be set");
  request.tokens = fields.Ids("tokens");
  TESSERA_RETURN_IF_ERROR(std::move(errors).Finish());
  return request;
}

StatusOr<std::string> Tokenize(const LoadedModel& model, const TokenizeRequest& request) {
  std::vector<TokenId> ids;
  if (request.chat) {
    TESSERA_ASSIGN_OR_RETURN(RenderedChat rendered, RenderChat(model, *request.chat));
    ids = std::move(rendered.token_ids);
  } else {
    TESSERA_ASSIGN_OR_RETURN(ids, EncodePrompt(model, request.prompt));
  }
  OrderedJson body = {{"count", ids.size()},
                      {"max_model_len", model.max_context},
                      {"tokens", ids},
                      {"token_strs", nullptr}};
  if (request.token_strings) {
    body["token_strs"] = OrderedJson::array();
    for (const TokenId id : ids) {
      std::string text;
      Utf8Repair repair;
      repair.Append(model.tokens->Of(id), &text);
      repair.Flush(&text);
      body["token_strs"].push_back(std::move(text));
    }
  }
  return body.dump();
}

StatusOr<std::string> Detokenize(const LoadedModel& model, const DetokenizeRequest& request) {
  StatusOr<DecodedText> decoded = DecodeTokens(model, request.tokens, SpecialTokens::kKeep);
  if (!decoded.ok()) {
    // The list has another name here.
    ErrorReport report = ReportOf(decoded.status());
    for (FieldViolation& one : report.details.violations) one.field.replace(0, 3, "tokens");
    return MakeError(report.details, report.message);
  }
  return OrderedJson({{"prompt", decoded->text}}).dump();
}

void Answer(const std::shared_ptr<Exchange>& exchange, const std::string& request_id,
            StatusOr<std::string> body) {
  HttpResponse response = body.ok()
                              ? OpenAiJson(std::move(*body))
                              : OpenAiErrorResponse(body.status(), OpenAiEndpoint::kCompletions);
  response.headers.emplace_back("x-request-id", request_id);
  exchange->Respond(std::move(response));
}

// Answers with what `work` makes of the model, on the pool.
void OnModel(Frontend* frontend, const SettingsStore& settings,
             const std::shared_ptr<Exchange>& exchange, const std::string& request_id,
             const std::string& model,
             std::function<StatusOr<std::string>(const LoadedModel&)> work) {
  const TimePoint deadline = SystemClock().Now() + settings.Current()->limits.max_request_time;
  frontend->WithModel(
      model, deadline,
      [exchange, request_id, work = std::move(work)](const StatusOr<ModelPtr>& loaded) {
        StatusOr<std::string> body =
            loaded.ok() ? work(**loaded) : StatusOr<std::string>(loaded.status());
        exchange->Post(
            [exchange, request_id, body = std::move(body)] { Answer(exchange, request_id, body); });
      });
}

}  // namespace

void ServeTokenize(Frontend* frontend, const SettingsStore& settings,
                   const std::shared_ptr<Exchange>& exchange, const std::string& request_id) {
  StatusOr<TokenizeRequest> request = ParseTokenize(exchange->request().body);
  if (!request.ok()) return Answer(exchange, request_id, request.status());
  const std::string model = request->model;
  OnModel(frontend, settings, exchange, request_id, model,
          [request = std::move(*request)](const LoadedModel& loaded) {
            return Tokenize(loaded, request);
          });
}

void ServeDetokenize(Frontend* frontend, const SettingsStore& settings,
                     const std::shared_ptr<Exchange>& exchange, const std::string& request_id) {
  StatusOr<DetokenizeRequest> request = ParseDetokenize(exchange->request().body);
  if (!request.ok()) return Answer(exchange, request_id, request.status());
  const std::string model = request->model;
  OnModel(frontend, settings, exchange, request_id, model,
          [request = std::move(*request)](const LoadedModel& loaded) {
            return Detokenize(loaded, request);
          });
}

}  // namespace tessera::server
