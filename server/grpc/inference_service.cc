#include "server/grpc/inference_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/text_ops.h"
#include "server/grpc/batch_call.h"
#include "server/grpc/deadline.h"
#include "server/grpc/generation_stream.h"
#include "server/grpc/request_translator.h"
#include "server/grpc/response_translator.h"
#include "server/grpc/status_translator.h"
#include "tessera/v1/inference_service.grpc.pb.h"

namespace tessera::server {
namespace {

constexpr int kMaxBatch = 256;
constexpr uint32_t kPageSize = 100;
constexpr uint32_t kMaxPageSize = 1000;

Status NotOffered(absl::string_view what) {
  return MakeError(Condition::kUnsupported, absl::StrCat(what, " is not offered by this server"));
}

Status AllItems(std::vector<CollectedOutput> outputs, v1::GenerateBatchResponse* response) {
  for (CollectedOutput& output : outputs) {
    v1::BatchItem* item = response->add_items();
    for (OutputDelta& delta : output.choices) ToProto(std::move(delta), item->add_choices());
    for (const OutputFinished& one : output.finished) ToProto(one, item->add_finished());
    if (output.error.ok()) continue;
    const ErrorReport report = ReportOf(output.error);
    item->set_code(static_cast<int>(report.row->code));
    item->set_message(report.message);
  }
  return absl::OkStatus();
}

// The usage of several prompts together.
void AddUsage(const CollectedOutput& output, v1::Usage* usage) {
  if (!output.started) return;
  usage->set_prompt_tokens(usage->prompt_tokens() + output.started->prompt_tokens);
  usage->set_cached_tokens(usage->cached_tokens() + output.started->cached_tokens);
}

Status AllScores(const std::vector<CollectedOutput>& outputs, v1::ScoreResponse* response) {
  if (const size_t failed = FirstFailure(outputs); failed < outputs.size()) {
    return WithFieldName(WithFieldName(outputs[failed].error, "prompt", "context"), "continuation",
                         absl::StrCat("continuations[", failed, "]"));
  }
  for (const CollectedOutput& output : outputs) {
    ToProto(output, response->add_continuations());
    AddUsage(output, response->mutable_usage());
  }
  return absl::OkStatus();
}

Status AllEmbeddings(const std::vector<CollectedOutput>& outputs, v1::EmbedResponse* response) {
  if (const size_t failed = FirstFailure(outputs); failed < outputs.size()) {
    return WithFieldName(outputs[failed].error, "prompt", absl::StrCat("inputs[", failed, "]"));
  }
  for (const CollectedOutput& output : outputs) {
    response->add_embeddings()->mutable_values()->Add(output.embedding.begin(),
                                                      output.embedding.end());
    AddUsage(output, response->mutable_usage());
  }
  return absl::OkStatus();
}

Status TokenizeWith(const LoadedModel& model, const PromptSpec& prompt,
                    const v1::TokenizeRequest& request, v1::TokenizeResponse* response) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<TokenSpan> spans, EncodeSpans(model, prompt));
  for (const TokenSpan& span : spans) {
    v1::Token* token = response->add_tokens();
    token->set_id(span.id);
    token->set_raw(span.raw);
    if (request.offsets()) response->add_byte_offsets(span.begin);
  }
  response->set_max_context(static_cast<uint32_t>(model.max_context));
  return absl::OkStatus();
}

Status DetokenizeWith(const LoadedModel& model, const v1::DetokenizeRequest& request,
                      v1::DetokenizeResponse* response) {
  const bool skip = !request.has_skip_special_tokens() || request.skip_special_tokens();
  TESSERA_ASSIGN_OR_RETURN(DecodedText decoded,
                           DecodeTokens(model, {request.ids().begin(), request.ids().end()},
                                        skip ? SpecialTokens::kSkip : SpecialTokens::kKeep));
  response->set_text(std::move(decoded.text));
  response->set_raw(std::move(decoded.raw));
  return absl::OkStatus();
}

Status RenderWith(const LoadedModel& model, const ChatSpec& chat,
                  v1::RenderChatResponse* response) {
  TESSERA_ASSIGN_OR_RETURN(RenderedChat rendered, RenderChat(model, chat));
  response->set_text(std::move(rendered.text));
  response->mutable_token_ids()->Add(rendered.token_ids.begin(), rendered.token_ids.end());
  return absl::OkStatus();
}

class InferenceService final : public v1::InferenceService::CallbackService {
 public:
  explicit InferenceService(Frontend* frontend) : frontend_(frontend) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    GenerationSpec spec = ToSpec(*request);
    spec.deadline = DeadlineOf(*context);
    return GenerationStream<v1::GenerateResponse>::Begin(frontend_, std::move(spec));
  }

  grpc::ServerWriteReactor<v1::ChatResponse>* Chat(grpc::CallbackServerContext* context,
                                                   const v1::ChatRequest* request) override {
    using Stream = GenerationStream<v1::ChatResponse>;
    StatusOr<GenerationSpec> spec = ToSpec(*request);
    if (!spec.ok()) return Stream::Refuse(spec.status(), request->generation().request_id());
    spec->deadline = DeadlineOf(*context);
    return Stream::Begin(frontend_, std::move(*spec));
  }

  grpc::ServerUnaryReactor* GenerateBatch(grpc::CallbackServerContext* context,
                                          const v1::GenerateBatchRequest* request,
                                          v1::GenerateBatchResponse* response) override {
    if (request->requests_size() > kMaxBatch) {
      return Answer(
          context,
          InvalidFields({{"requests", absl::StrCat("must be at most ", kMaxBatch, " entries, is ",
                                                   request->requests_size())}}));
    }
    std::vector<GenerationSpec> specs;
    for (const v1::GenerateRequest& one : request->requests()) {
      specs.push_back(ToSpec(one));
      specs.back().deadline = DeadlineOf(*context);
    }
    return BatchCall::Begin(frontend_, std::move(specs), Batch::Failure::kIsKept,
                            Batch::Order::kAtOnce,
                            [response](std::vector<CollectedOutput> outputs) {
                              return AllItems(std::move(outputs), response);
                            });
  }

  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override {
    StatusOr<std::vector<GenerationSpec>> specs = ToSpecs(*request);
    if (!specs.ok()) return Answer(context, specs.status());
    for (GenerationSpec& spec : *specs) spec.deadline = DeadlineOf(*context);
    // The continuations have the context in common.
    return BatchCall::Begin(frontend_, std::move(*specs), Batch::Failure::kEndsAll,
                            Batch::Order::kFirstAhead,
                            [response](const std::vector<CollectedOutput>& outputs) {
                              return AllScores(outputs, response);
                            });
  }

  grpc::ServerUnaryReactor* CancelGeneration(grpc::CallbackServerContext* context,
                                             const v1::CancelGenerationRequest* request,
                                             v1::CancelGenerationResponse* response) override {
    for (const std::string& id : frontend_->CancelRequests(
             {request->request_ids().begin(), request->request_ids().end()})) {
      response->add_cancelled_ids(id);
    }
    return Answer(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* RenderChat(grpc::CallbackServerContext* context,
                                       const v1::RenderChatRequest* request,
                                       v1::RenderChatResponse* response) override {
    StatusOr<GenerationSpec> spec = ToSpec(request->chat());
    if (!spec.ok()) return Answer(context, spec.status());
    return OnModel(context, spec->model,
                   [chat = std::move(*spec->chat), response](const LoadedModel& model) {
                     return RenderWith(model, chat, response);
                   });
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    PromptSpec prompt = ToSpec(request->prompt());
    std::vector<FieldViolation> violations;
    ValidatePrompt(prompt, "prompt", &violations);
    if (!violations.empty()) return Answer(context, InvalidFields(std::move(violations)));
    return OnModel(context, request->model(),
                   [prompt = std::move(prompt), request, response](const LoadedModel& model) {
                     return TokenizeWith(model, prompt, *request, response);
                   });
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    return OnModel(context, request->model(), [request, response](const LoadedModel& model) {
      return DetokenizeWith(model, *request, response);
    });
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override {
    const uint32_t size =
        request->page_size() == 0 ? kPageSize : std::min(request->page_size(), kMaxPageSize);
    // The token is the last name of the page before: pages stay right when models come and go.
    for (const ModelInfo& info : frontend_->registry().List()) {
      if (info.name <= request->page_token()) continue;
      if (response->models_size() == static_cast<int>(size)) {
        response->set_next_page_token(response->models(response->models_size() - 1).name());
        break;
      }
      ToProto(info, response->add_models());
    }
    return Answer(context, absl::OkStatus());
  }

  grpc::ServerWriteReactor<v1::ResumeGenerationResponse>* ResumeGeneration(
      grpc::CallbackServerContext*, const v1::ResumeGenerationRequest* request) override {
    class Refusal final : public grpc::ServerWriteReactor<v1::ResumeGenerationResponse> {
     public:
      explicit Refusal(const grpc::Status& status) { Finish(status); }
      void OnDone() override { delete this; }
    };
    return new Refusal(ToGrpc(NotOffered("resuming a stream"), request->request_id()));
  }

  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context,
                                  const v1::EmbedRequest* request,
                                  v1::EmbedResponse* response) override {
    StatusOr<std::vector<GenerationSpec>> specs = ToSpecs(*request);
    if (!specs.ok()) return Answer(context, specs.status());
    for (GenerationSpec& spec : *specs) spec.deadline = DeadlineOf(*context);
    return BatchCall::Begin(frontend_, std::move(*specs), Batch::Failure::kEndsAll,
                            Batch::Order::kAtOnce,
                            [response](const std::vector<CollectedOutput>& outputs) {
                              return AllEmbeddings(outputs, response);
                            });
  }

  grpc::ServerUnaryReactor* GetQuota(grpc::CallbackServerContext* context,
                                     const v1::GetQuotaRequest*, v1::GetQuotaResponse*) override {
    return Answer(context, NotOffered("a quota (nothing limits a caller)"));
  }

 private:
  static grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context,
                                          const Status& status) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(status, ""));
    return reactor;
  }

  // Answers with what `work` returns, from the pool. Request and response live until then.
  grpc::ServerUnaryReactor* OnModel(grpc::CallbackServerContext* context, const std::string& name,
                                    std::function<Status(const LoadedModel&)> work) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    frontend_->WithModel(name, DeadlineOf(*context),
                         [reactor, work = std::move(work)](const StatusOr<ModelPtr>& model) {
                           reactor->Finish(ToGrpc(model.ok() ? work(**model) : model.status(), ""));
                         });
    return reactor;
  }

  Frontend* const frontend_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeInferenceService(Frontend* frontend) {
  return std::make_shared<InferenceService>(frontend);
}

}  // namespace tessera::server
