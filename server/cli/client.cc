#include "server/cli/client.h"

#include <grpcpp/grpcpp.h>

#include <mutex>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "server/cli/error_text.h"
#include "tessera/admin/v1/admin_service.grpc.pb.h"
#include "tessera/v1/inference_service.grpc.pb.h"

namespace tessera::server::cli {
namespace {

namespace pb = ::tessera::v1;
namespace admin = ::tessera::admin::v1;

constexpr int kMaxMessageBytes = 64 << 20;

std::shared_ptr<grpc::Channel> Dial(const std::string& endpoint) {
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(kMaxMessageBytes);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // A daemon is on this machine or near; a proxy for the web does not lead to it.
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args);
}

Status FromGrpc(const grpc::Status& status, const std::string& endpoint) {
  if (status.ok()) {
    return absl::OkStatus();
  }
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  const std::string& text = status.error_message();
  // What the library says when there is nobody to talk to carries no details of a server.
  if (code == absl::StatusCode::kUnavailable && status.error_details().empty()) {
    return Error(code, {.what = absl::StrCat("no daemon answers at ", endpoint),
                        .why = text,
                        .fix = "start one with `tessera serve`, or name its address"});
  }
  return Error(code, PartsOfText(text));
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + static_cast<double>(duration.nanos()) * 1e-9;
}

google::protobuf::Duration ToProto(Duration duration) {
  google::protobuf::Duration out;
  out.set_seconds(duration.count() / 1'000'000'000);
  out.set_nanos(static_cast<int32_t>(duration.count() % 1'000'000'000));
  return out;
}

// "FINISH_REASON_MAX_TOKENS" as "max_tokens".
std::string EnumWord(const std::string& name, absl::string_view prefix) {
  return absl::AsciiStrToLower(absl::StripPrefix(name, prefix));
}

void FillSampling(const SamplingValues& in, pb::Sampling* out) {
  const auto set = [out](const std::optional<double>& value, void (pb::Sampling::*setter)(float)) {
    if (value) {
      (out->*setter)(static_cast<float>(*value));
    }
  };
  set(in.temperature, &pb::Sampling::set_temperature);
  set(in.top_p, &pb::Sampling::set_top_p);
  set(in.min_p, &pb::Sampling::set_min_p);
  set(in.typical_p, &pb::Sampling::set_typical_p);
  set(in.repetition_penalty, &pb::Sampling::set_repetition_penalty);
  set(in.presence_penalty, &pb::Sampling::set_presence_penalty);
  set(in.frequency_penalty, &pb::Sampling::set_frequency_penalty);
  if (in.top_k) {
    out->set_top_k(*in.top_k);
  }
  if (in.seed) {
    out->set_seed(*in.seed);
  }
}

pb::GenerateRequest ToRequest(const GenerateCall& call) {
  pb::GenerateRequest request;
  request.set_model(call.model);
  if (call.messages.empty()) {
    pb::Prompt* const prompt = request.mutable_prompt();
    if (!call.token_ids.empty()) {
      prompt->mutable_token_ids()->mutable_ids()->Add(call.token_ids.begin(), call.token_ids.end());
    } else {
      prompt->set_text(call.prompt);
    }
  }
  FillSampling(call.sampling, request.mutable_sampling());
  pb::Stopping* const stopping = request.mutable_stopping();
  if (call.max_tokens) {
    stopping->set_max_tokens(*call.max_tokens);
  }
  stopping->set_min_tokens(call.min_tokens);
  stopping->mutable_stop()->Add(call.stop.begin(), call.stop.end());
  stopping->set_ignore_eos(call.end_tokens == GenerateCall::EndTokens::kIgnore);
  pb::Output* const output = request.mutable_output();
  if (call.logprobs) {
    output->set_logprobs(*call.logprobs);
  }
  if (call.prompt_logprobs) {
    output->set_prompt_logprobs(*call.prompt_logprobs);
  }
  output->set_token_ids(call.tokens == GenerateCall::Tokens::kWithIds);
  output->set_progress(true);
  request.mutable_scheduling()->set_bypass_prefix_cache(call.prefix_cache ==
                                                        GenerateCall::PrefixCache::kBypass);
  request.mutable_scheduling()->set_deterministic(call.numerics ==
                                                  GenerateCall::Numerics::kDeterministic);
  return request;
}

ScoredToken FromProto(const pb::Token& token) {
  ScoredToken out;
  out.id = token.id();
  if (token.has_logprob()) {
    out.logprob = token.logprob();
  }
  out.rank = token.rank();
  out.raw = token.raw();
  for (const pb::TopToken& top : token.top()) {
    out.top.emplace_back(top.id(), top.logprob());
  }
  return out;
}

GenerateFinished FromProto(const pb::Finished& finished) {
  GenerateFinished out;
  out.reason = EnumWord(pb::FinishReason_Name(finished.reason()), "FINISH_REASON_");
  out.prompt_tokens = finished.usage().prompt_tokens();
  out.cached_tokens = finished.usage().cached_tokens();
  out.completion_tokens = finished.usage().completion_tokens();
  out.queue_s = Seconds(finished.timings().queue());
  out.prefill_s = Seconds(finished.timings().prefill());
  out.decode_s = Seconds(finished.timings().decode());
  out.preemptions = finished.timings().preemptions();
  return out;
}

void Deliver(const pb::GenerateResponse& event, const GenerateSink& sink,
             GenerateDelta delta = {}) {
  switch (event.event_case()) {
    case pb::GenerateResponse::kStarted:
      if (sink.started) {
        sink.started({event.started().prompt_tokens(), event.started().cached_tokens(),
                      event.started().model_revision()});
      }
      return;
    case pb::GenerateResponse::kProgress:
      if (sink.progress) {
        sink.progress(event.progress().prompt_tokens_done(),
                      event.progress().prompt_tokens_total());
      }
      return;
    case pb::GenerateResponse::kDelta:
      if (sink.delta) {
        delta.text = event.delta().text();
        for (const pb::Token& token : event.delta().tokens()) {
          delta.tokens.push_back(FromProto(token));
        }
        sink.delta(delta);
      }
      return;
    case pb::GenerateResponse::kFinished:
      if (sink.finished) {
        sink.finished(FromProto(event.finished()));
      }
      return;
    case pb::GenerateResponse::EVENT_NOT_SET:
      return;
  }
}

}  // namespace

struct CancelSwitch::State {
  std::mutex mutex;
  bool cancelled = false;
  std::set<grpc::ClientContext*> calls;
};

CancelSwitch::CancelSwitch() : state_(std::make_shared<State>()) {}

void CancelSwitch::Cancel() {
  const std::scoped_lock lock(state_->mutex);
  state_->cancelled = true;
  for (grpc::ClientContext* const call : state_->calls) {
    call->TryCancel();
  }
}

struct Client::Impl {
  std::string endpoint;
  std::unique_ptr<pb::InferenceService::Stub> stub;

  template <typename Request, typename Response>
  StatusOr<Response> Unary(grpc::Status (pb::InferenceService::Stub::*method)(grpc::ClientContext*,
                                                                              const Request&,
                                                                              Response*),
                           const Request& request) {
    grpc::ClientContext context;
    Response response;
    const grpc::Status status = (stub.get()->*method)(&context, request, &response);
    if (!status.ok()) {
      return FromGrpc(status, endpoint);
    }
    return response;
  }
};

Client::Client(const std::string& endpoint) : impl_(std::make_unique<Impl>()) {
  impl_->endpoint = endpoint;
  impl_->stub = pb::InferenceService::NewStub(Dial(endpoint));
}
Client::~Client() = default;

Status Client::Generate(const GenerateCall& call, const GenerateSink& sink, CancelSwitch cancel) {
  grpc::ClientContext context;
  if (call.timeout.count() > 0) {
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::duration_cast<std::chrono::microseconds>(call.timeout));
  }
  CancelSwitch::State& state = *cancel.state_;
  {
    const std::scoped_lock lock(state.mutex);
    if (state.cancelled) {
      return absl::CancelledError("cancelled");
    }
    state.calls.insert(&context);
  }
  grpc::Status status;
  const pb::GenerateRequest request = ToRequest(call);
  if (call.messages.empty()) {
    pb::GenerateResponse event;
    const auto reader = impl_->stub->Generate(&context, request);
    while (reader->Read(&event)) {
      Deliver(event, sink);
    }
    status = reader->Finish();
  } else {
    pb::ChatRequest chat;
    *chat.mutable_generation() = request;
    for (const ChatTurn& turn : call.messages) {
      pb::Message* const message = chat.add_messages();
      message->set_role(turn.role);
      message->set_content(turn.content);
    }
    pb::ChatResponse event;
    const auto reader = impl_->stub->Chat(&context, chat);
    while (reader->Read(&event)) {
      GenerateDelta delta;
      delta.reasoning = event.reasoning_delta();
      for (const pb::ToolCall& call : event.tool_call_deltas()) {
        delta.calls.push_back({call.name(), call.arguments_json()});
      }
      Deliver(event.base(), sink, std::move(delta));
    }
    status = reader->Finish();
  }
  const std::scoped_lock lock(state.mutex);
  state.calls.erase(&context);
  return FromGrpc(status, impl_->endpoint);
}

StatusOr<Client::Tokens> Client::Tokenize(absl::string_view model, absl::string_view text,
                                          SpecialTokens special) {
  pb::TokenizeRequest request;
  request.set_model(std::string(model));
  request.mutable_prompt()->set_text(std::string(text));
  request.mutable_prompt()->set_add_special_tokens(special == SpecialTokens::kAdd);
  TESSERA_ASSIGN_OR_RETURN(const pb::TokenizeResponse response,
                           impl_->Unary(&pb::InferenceService::Stub::Tokenize, request));
  Tokens tokens;
  tokens.max_context = response.max_context();
  for (const pb::Token& token : response.tokens()) {
    tokens.tokens.push_back(FromProto(token));
  }
  return tokens;
}

StatusOr<std::string> Client::Detokenize(absl::string_view model,
                                         const std::vector<uint32_t>& ids) {
  pb::DetokenizeRequest request;
  request.set_model(std::string(model));
  request.mutable_ids()->Add(ids.begin(), ids.end());
  TESSERA_ASSIGN_OR_RETURN(const pb::DetokenizeResponse response,
                           impl_->Unary(&pb::InferenceService::Stub::Detokenize, request));
  return response.text();
}

StatusOr<std::vector<float>> Client::Score(absl::string_view model,
                                           std::span<const uint32_t> context,
                                           std::span<const uint32_t> continuation) {
  pb::ScoreRequest request;
  request.set_model(std::string(model));
  request.mutable_context()->mutable_token_ids()->mutable_ids()->Add(context.begin(),
                                                                     context.end());
  request.add_continuations()->mutable_token_ids()->mutable_ids()->Add(continuation.begin(),
                                                                       continuation.end());
  TESSERA_ASSIGN_OR_RETURN(const pb::ScoreResponse response,
                           impl_->Unary(&pb::InferenceService::Stub::Score, request));
  std::vector<float> logprobs;
  if (response.continuations_size() > 0) {
    for (const pb::Token& token : response.continuations(0).tokens()) {
      logprobs.push_back(token.logprob());
    }
  }
  return logprobs;
}

StatusOr<std::vector<RemoteModel>> Client::ListModels() {
  std::vector<RemoteModel> models;
  pb::ListModelsRequest request;
  do {
    TESSERA_ASSIGN_OR_RETURN(const pb::ListModelsResponse response,
                             impl_->Unary(&pb::InferenceService::Stub::ListModels, request));
    for (const pb::Model& model : response.models()) {
      RemoteModel out;
      out.name = model.name();
      out.revision = model.revision();
      out.state = EnumWord(pb::ModelState_Name(model.state()), "MODEL_STATE_");
      out.max_context = model.max_context();
      models.push_back(std::move(out));
    }
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  return models;
}

StatusOr<std::string> Client::ChooseModel(const std::string& model) {
  if (!model.empty()) {
    return model;
  }
  TESSERA_ASSIGN_OR_RETURN(const std::vector<RemoteModel> models, ListModels());
  if (models.size() == 1) {
    return models.front().name;
  }
  const std::string names =
      absl::StrJoin(models, ", ", [](std::string* out, const RemoteModel& m) { *out += m.name; });
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = "no model is named",
                .why = models.empty() ? "the daemon has none" : absl::StrCat("it has ", names),
                .fix = models.empty() ? "import one with `tessera zoo import`"
                                      : "choose one with --model NAME"});
}

struct AdminClient::Impl {
  std::string endpoint;
  std::unique_ptr<admin::AdminService::Stub> stub;

  template <typename Request, typename Response>
  StatusOr<Response> Unary(grpc::Status (admin::AdminService::Stub::*method)(grpc::ClientContext*,
                                                                             const Request&,
                                                                             Response*),
                           const Request& request) {
    grpc::ClientContext context;
    Response response;
    const grpc::Status status = (stub.get()->*method)(&context, request, &response);
    if (!status.ok()) {
      return FromGrpc(status, endpoint);
    }
    return response;
  }
};

namespace {

RemoteModel FromProto(const admin::Model& model) {
  RemoteModel out;
  out.name = model.name();
  out.revision = model.revision();
  out.state = EnumWord(admin::ModelState_Name(model.state()), "MODEL_STATE_");
  out.max_context = model.max_context();
  out.blocks = model.blocks();
  out.weight_bytes = model.weight_bytes();
  out.running = model.running_requests();
  out.error = model.error();
  return out;
}

}  // namespace

AdminClient::AdminClient(const std::string& endpoint) : impl_(std::make_unique<Impl>()) {
  impl_->endpoint = endpoint;
  impl_->stub = admin::AdminService::NewStub(Dial(endpoint));
}
AdminClient::~AdminClient() = default;

StatusOr<RemoteModel> AdminClient::Load(const std::string& name, const LoadProgress& progress) {
  grpc::ClientContext context;
  admin::LoadModelRequest request;
  request.set_name(name);
  const auto reader = impl_->stub->LoadModel(&context, request);
  admin::LoadModelResponse event;
  RemoteModel model;
  while (reader->Read(&event)) {
    if (event.has_model()) {
      model = FromProto(event.model());
    } else if (progress) {
      progress(event.blocks_done(), event.blocks_total());
    }
  }
  TESSERA_RETURN_IF_ERROR(FromGrpc(reader->Finish(), impl_->endpoint));
  return model;
}

StatusOr<uint32_t> AdminClient::Unload(const std::string& name, Duration grace) {
  admin::UnloadModelRequest request;
  request.set_name(name);
  *request.mutable_grace() = ToProto(grace);
  TESSERA_ASSIGN_OR_RETURN(const admin::UnloadModelResponse response,
                           impl_->Unary(&admin::AdminService::Stub::UnloadModel, request));
  return response.ended_requests();
}

StatusOr<std::vector<RemoteModel>> AdminClient::ListModels() {
  TESSERA_ASSIGN_OR_RETURN(
      const admin::ListModelsResponse response,
      impl_->Unary(&admin::AdminService::Stub::ListModels, admin::ListModelsRequest()));
  std::vector<RemoteModel> models;
  for (const admin::Model& model : response.models()) {
    models.push_back(FromProto(model));
  }
  return models;
}

StatusOr<DaemonStats> AdminClient::Stats() {
  TESSERA_ASSIGN_OR_RETURN(
      const admin::GetStatsResponse r,
      impl_->Unary(&admin::AdminService::Stub::GetStats, admin::GetStatsRequest()));
  DaemonStats out;
  out.running = r.running();
  out.waiting = r.waiting();
  out.parked = r.parked();
  out.open_requests = r.open_requests();
  out.steps = r.steps();
  out.rows = r.rows();
  out.step_ns = r.step_ns();
  out.kernel_ns = r.kernel_ns();
  out.preemptions = r.preemptions();
  out.computed_prompt_tokens = r.computed_prompt_tokens();
  out.output_tokens = r.output_tokens();
  out.weight_bytes = r.weight_bytes();
  out.config_generation = r.config_generation();
  out.uptime_s = Seconds(r.uptime());
  out.state = r.draining() ? DaemonStats::State::kDraining : DaemonStats::State::kServing;
  return out;
}

Status AdminClient::Drain(Duration timeout, const std::function<void(uint32_t)>& progress) {
  grpc::ClientContext context;
  admin::DrainRequest request;
  *request.mutable_timeout() = ToProto(timeout);
  const auto reader = impl_->stub->Drain(&context, request);
  admin::DrainResponse event;
  while (reader->Read(&event)) {
    if (progress) {
      progress(event.open_requests());
    }
  }
  TESSERA_RETURN_IF_ERROR(FromGrpc(reader->Finish(), impl_->endpoint));
  if (!event.drained()) {
    return Error(absl::StatusCode::kDeadlineExceeded,
                 {.what = absl::StrCat(event.open_requests(), " requests still run"),
                  .fix = "wait longer (--timeout), or stop the daemon"});
  }
  return absl::OkStatus();
}

Status AdminClient::Resume() {
  return impl_->Unary(&admin::AdminService::Stub::Resume, admin::ResumeRequest()).status();
}

StatusOr<ReloadResult> AdminClient::Reload(ReloadMode mode) {
  admin::ReloadConfigRequest request;
  request.set_dry_run(mode == ReloadMode::kDryRun);
  TESSERA_ASSIGN_OR_RETURN(const admin::ReloadConfigResponse response,
                           impl_->Unary(&admin::AdminService::Stub::ReloadConfig, request));
  ReloadResult out;
  out.generation = response.generation();
  for (const admin::ConfigChange& change : response.changes()) {
    out.changes.push_back({change.path(), change.from(), change.to()});
  }
  for (const admin::ConfigProblem& problem : response.problems()) {
    out.problems.push_back(absl::StrCat(problem.where(), ": ", problem.what(),
                                        problem.hint().empty() ? "" : " (", problem.hint(),
                                        problem.hint().empty() ? "" : ")"));
  }
  if (response.applied()) {
    out.outcome = ReloadResult::Outcome::kApplied;
  } else if (out.problems.empty()) {
    out.outcome = ReloadResult::Outcome::kValid;
  }
  return out;
}

}  // namespace tessera::server::cli
