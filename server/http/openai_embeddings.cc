#include "server/http/openai_embeddings.h"

#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/core/batch.h"
#include "server/http/openai_request.h"

namespace tessera::server {
namespace {

using OrderedJson = nlohmann::ordered_json;

void ReadPooling(FieldReader* fields, EmbeddingSpec* embedding) {
  const std::string pooling = fields->Text("pooling").value_or("last");
  if (pooling == "mean") {
    embedding->pooling = scheduler::Pooling::kMean;
  } else if (pooling == "cls") {
    embedding->pooling = scheduler::Pooling::kFirst;
  } else if (pooling != "last") {
    fields->Invalid("pooling", "must be \"last\", \"mean\" or \"cls\"");
  }
}

// The shortest text that reads back as the same float.
void AppendFloats(const std::vector<float>& values, std::string* out) {
  out->push_back('[');
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out->push_back(',');
    if (!std::isfinite(values[i])) {
      out->append("null");
      continue;
    }
    std::array<char, 32> text;
    const auto end = std::to_chars(text.data(), text.data() + text.size(), values[i]).ptr;
    out->append(text.data(), end);
  }
  out->push_back(']');
}

static_assert(std::endian::native == std::endian::little);
void AppendBase64(const std::vector<float>& values, std::string* out) {
  const absl::string_view bytes(reinterpret_cast<const char*>(values.data()),
                                values.size() * sizeof(float));
  absl::StrAppend(out, "\"", absl::Base64Escape(bytes), "\"");
}

std::string AnswerBody(const std::string& model, EmbeddingsRequest::Format format,
                       const std::vector<CollectedOutput>& outputs) {
  std::string body = R"({"object":"list","data":[)";
  uint32_t tokens = 0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    absl::StrAppend(&body, i == 0 ? "" : ",", R"({"object":"embedding","index":)", i,
                    R"(,"embedding":)");
    if (format == EmbeddingsRequest::Format::kFloat) {
      AppendFloats(outputs[i].embedding, &body);
    } else {
      AppendBase64(outputs[i].embedding, &body);
    }
    body.push_back('}');
    if (outputs[i].started) tokens += outputs[i].started->prompt_tokens;
  }
  const OrderedJson usage = {{"prompt_tokens", tokens}, {"total_tokens", tokens}};
  const std::string name =
      OrderedJson(model).dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  absl::StrAppend(&body, R"(],"model":)", name, R"(,"usage":)", usage.dump(), "}");
  return body;
}

// One batch for one exchange; on its strand unless said otherwise.
class EmbeddingsServing final : public ExchangeObserver,
                                public std::enable_shared_from_this<EmbeddingsServing> {
 public:
  EmbeddingsServing(std::shared_ptr<Exchange> exchange, std::string request_id, std::string model,
                    EmbeddingsRequest::Format format)
      : exchange_(std::move(exchange)),
        request_id_(std::move(request_id)),
        model_(std::move(model)),
        format_(format) {}

  void Begin(Frontend* frontend, std::vector<GenerationSpec> specs) {
    batch_ =
        Batch::Start(frontend, std::move(specs), Batch::Failure::kEndsAll, Batch::Order::kAtOnce,
                     [weak = weak_from_this()](const std::vector<CollectedOutput>& outputs) {
                       if (const auto self = weak.lock()) self->OnOutputs(outputs);
                     });
  }

  void OnWritable() override {}
  void OnIdle() override {}
  void OnClosed() override {
    if (batch_) batch_->Cancel();
  }

 private:
  // On a pool thread.
  void OnOutputs(const std::vector<CollectedOutput>& outputs) {
    const size_t failed = FirstFailure(outputs);
    HttpResponse response;
    if (failed < outputs.size()) {
      const std::string name = outputs.size() == 1 ? "input" : absl::StrCat("input[", failed, "]");
      response = OpenAiErrorResponse(InputError(outputs[failed].error, name),
                                     OpenAiEndpoint::kCompletions);
    } else {
      response = OpenAiJson(AnswerBody(model_, format_, outputs));
    }
    response.headers.emplace_back("x-request-id", request_id_);
    exchange_->Post([self = shared_from_this(), response = std::move(response)]() mutable {
      self->exchange_->Respond(std::move(response));
    });
  }

  static Status InputError(const Status& status, const std::string& name) {
    Status named = status;
    for (const char* field : {"prompt.text", "prompt.token_ids", "prompt"}) {
      named = WithFieldName(named, field, name);
    }
    return named;
  }

  const std::shared_ptr<Exchange> exchange_;
  const std::string request_id_;
  const std::string model_;
  const EmbeddingsRequest::Format format_;
  std::shared_ptr<Batch> batch_;
};

}  // namespace

StatusOr<EmbeddingsRequest> ParseEmbeddingsRequest(absl::string_view text,
                                                   const SpecLimits& limits) {
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonBody(text));
  FieldErrors errors;
  FieldReader fields(body, "", &errors);
  EmbeddingsRequest request;
  GenerationSpec spec;
  spec.model = fields.Text("model").value_or("");
  if (spec.model.empty()) fields.Invalid("model", "must be set");
  spec.scheduling.cache_scope = fields.Text("cache_salt").value_or("");
  EmbeddingSpec& embedding = spec.embedding.emplace();
  ReadPooling(&fields, &embedding);
  embedding.dimensions = fields.Count("dimensions");
  if (!fields.Flag("normalize").value_or(true)) embedding.length = EmbeddingSpec::Length::kAsIs;
  const std::string format = fields.Text("encoding_format").value_or("float");
  if (format == "base64") {
    request.format = EmbeddingsRequest::Format::kBase64;
  } else if (format != "float") {
    fields.Invalid("encoding_format", "must be \"float\" or \"base64\"");
  }
  const std::optional<bool> special = fields.Flag("add_special_tokens");
  const std::optional<uint32_t> truncate = fields.Count("truncate_prompt_tokens");
  fields.Ignore({"user"});
  for (PromptSpec& prompt : ReadPrompts(&fields, "input")) {
    prompt.add_special_tokens = special;
    prompt.truncate_to = truncate;
    GenerationSpec& one = request.specs.emplace_back(spec);
    one.prompt = std::move(prompt);
  }
  // They differ in prompts alone, which ReadPrompts has judged.
  const Status valid =
      request.specs.empty() ? absl::OkStatus() : ValidateSpec(request.specs.front(), limits);
  if (!valid.ok()) {
    for (const FieldViolation& one : ReportOf(valid).details.violations) {
      errors.Invalid(OpenAiFieldName(OpenAiEndpoint::kCompletions, one.field), one.description);
    }
  }
  TESSERA_RETURN_IF_ERROR(std::move(errors).Finish());
  return request;
}

void ServeEmbeddings(Frontend* frontend, const SettingsStore& settings,
                     const std::shared_ptr<Exchange>& exchange, const std::string& request_id) {
  StatusOr<EmbeddingsRequest> request =
      ParseEmbeddingsRequest(exchange->request().body, LimitsOf(settings.Current()->limits));
  if (!request.ok()) {
    HttpResponse response = OpenAiErrorResponse(request.status(), OpenAiEndpoint::kCompletions);
    response.headers.emplace_back("x-request-id", request_id);
    return exchange->Respond(std::move(response));
  }
  auto serving = std::make_shared<EmbeddingsServing>(exchange, request_id,
                                                     request->specs.front().model, request->format);
  exchange->Observe(serving);
  serving->Begin(frontend, std::move(request->specs));
}

}  // namespace tessera::server
