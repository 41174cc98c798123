#include "server/core/request.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "config/foundation/log.h"
#include "server/core/errors.h"
#include "server/core/sampling_settings.h"
#include "server/core/text_ops.h"
#include "server/text/tokenizer.h"

namespace tessera::server {
namespace {

// What may tell how a template has begun the answer.
constexpr size_t kPromptEndBytes = 256;

Status TooLong(uint64_t prompt_tokens, uint64_t max_tokens, uint64_t limit) {
  ErrorDetails details;
  details.condition = Condition::kContextLength;
  const std::string asked = max_tokens == 0
                                ? absl::StrCat("the prompt has ", prompt_tokens, " tokens")
                                : absl::StrCat("the prompt has ", prompt_tokens,
                                               " tokens and max_tokens is ", max_tokens);
  details.violations.push_back(
      {"prompt", absl::StrCat(asked, "; together at most ", limit, " fit")});
  return MakeError(details, absl::StrCat(asked, ", but the model takes ", limit,
                                         " in all; shorten the prompt or lower max_tokens"));
}

Digest ScopeDigest(const std::string& scope) {
  return Hasher().AddText("cache scope").AddText(scope).Finish();
}

}  // namespace

Request::Request(Context context, GenerationSpec spec, std::weak_ptr<EventSink> sink)
    : context_(std::move(context)), spec_(std::move(spec)), sink_(std::move(sink)) {}

ModelPtr Request::model() const {
  const std::lock_guard lock(mutex_);
  return model_;
}

void Request::OnLoadProgress(uint32_t blocks_done, uint32_t blocks_total) {
  if (!spec_.output.progress || blocks_total == 0) return;
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != Phase::kReserved) return;
    load_progress_ = OutputProgress{};
    load_progress_->load_percent = static_cast<uint32_t>(100ull * blocks_done / blocks_total);
  }
  Notify();
}

void Request::OnModel(StatusOr<ModelPtr> model) {
  if (!model.ok()) {
    End(model.status());
    return;
  }
  context_.parts.pool->Post(
      [self = shared_from_this(), model = std::move(*model)] { self->Prepare(model); });
}

void Request::Prepare(const ModelPtr& model) {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != Phase::kReserved) return;
    model_ = model;
  }
  const Status status = Submit(model);
  if (!status.ok()) End(status);
}

Status Request::EncodeAll(const LoadedModel& model, uint32_t* continuation_from) {
  TESSERA_RETURN_IF_ERROR(ValidateTokenIds(spec_, model.vocab));
  if (spec_.continuation) {
    TESSERA_ASSIGN_OR_RETURN(EncodedPair pair,
                             EncodePair(model, spec_.prompt, *spec_.continuation));
    prompt_ = std::move(pair.ids);
    *continuation_from = pair.continuation_from;
  } else if (spec_.chat) {
    TESSERA_ASSIGN_OR_RETURN(RenderedChat rendered, RenderChat(model, *spec_.chat));
    prompt_ = std::move(rendered.token_ids);
    prompt_end_ = rendered.text.substr(rendered.text.size() -
                                       std::min(rendered.text.size(), kPromptEndBytes));
  } else {
    TESSERA_ASSIGN_OR_RETURN(prompt_, EncodePrompt(model, spec_.prompt));
  }
  if (prompt_.empty()) return InvalidFields({{"prompt", "has no token"}});
  return absl::OkStatus();
}

Status Request::CheckEmbedding(const LoadedModel& model) const {
  if (!spec_.embedding) return absl::OkStatus();
  if (!model.chain->pooling().ok()) {
    return MakeError(Condition::kUnsupported,
                     absl::StrCat("the device that serves model \"", model.name,
                                  "\" has no kernel that pools hidden states; a server with "
                                  "engine.device: cpu makes embeddings"));
  }
  const uint64_t width = model.chain->width();
  if (spec_.embedding->dimensions.value_or(0) > width) {
    return InvalidFields(
        {{"dimensions", absl::StrCat("must be at most ", width, ", the model's width, is ",
                                     *spec_.embedding->dimensions)}});
  }
  return absl::OkStatus();
}

StatusOr<uint32_t> Request::ChooseMaxTokens(const LoadedModel& model) const {
  const uint64_t limit =
      std::min(model.max_context, context_.parts.engine->MaxSequenceTokens(*model.chain));
  const uint64_t prompt = prompt_.size();
  if (!spec_.generates()) {
    if (prompt > limit) return TooLong(prompt, 0, limit);
    return 0;
  }
  if (prompt >= limit) return TooLong(prompt, 0, limit);
  uint64_t wanted = limit - prompt;
  if (spec_.stopping.max_tokens) {
    wanted = *spec_.stopping.max_tokens;
  } else if (model.defaults.max_tokens && *model.defaults.max_tokens > 0) {
    wanted = std::min(wanted, static_cast<uint64_t>(*model.defaults.max_tokens));
  }
  if (wanted > limit - prompt) return TooLong(prompt, wanted, limit);
  return static_cast<uint32_t>(wanted);
}

StatusOr<scheduler::GenerationRequest> Request::MakeRequest(const LoadedModel& model,
                                                            uint32_t continuation_from) const {
  TESSERA_ASSIGN_OR_RETURN(const uint32_t max_tokens, ChooseMaxTokens(model));
  scheduler::GenerationRequest request;
  request.id = context_.id;
  request.chain = model.chain_id;
  request.prompt = prompt_;
  TESSERA_ASSIGN_OR_RETURN(request.sampling, MakeSampling(model, spec_.sampling, context_.seed));
  request.stopping = MakeStopping(model, spec_.stopping, context_.arrival, max_tokens);
  request.output.logprobs = spec_.output.logprobs;
  request.output.prompt_logprobs = spec_.output.prompt_logprobs;
  request.output.logprob_ids = spec_.output.logprob_token_ids;
  request.output.progress = spec_.output.progress;
  request.n = spec_.sampling.n.value_or(1);
  request.prompt_only = !spec_.generates();
  if (spec_.continuation) {
    request.output.prompt_logprobs = spec_.output.prompt_logprobs.value_or(0);
    request.output.prompt_logprobs_from = continuation_from;
  }
  if (spec_.embedding) request.pooling = spec_.embedding->pooling;
  request.cache_scope = ScopeDigest(spec_.scheduling.cache_scope);
  request.bypass_prefix_cache = spec_.scheduling.bypass_prefix_cache;
  request.deterministic = spec_.scheduling.deterministic;
  request.arrival = context_.arrival;
  request.deadline = context_.deadline;
  // The wait for a model that loads is no wait in the queue.
  request.queue_deadline = context_.parts.clock->Now() + context_.max_queue_wait;
  return request;
}

AnswerOptions Request::ChatOptions() const {
  AnswerOptions options;
  const ChatSpec& chat = *spec_.chat;
  if (!chat.tools_json.empty() && chat.tool_choice != "none") {
    options.tools = OfferedTools(chat.tools_json);
  }
  options.prompt = prompt_end_;
  if (!chat.parallel_tool_calls) options.calls = AnswerOptions::Calls::kOne;
  if (!spec_.output.skip_special_tokens) options.special = AnswerOptions::Special::kShow;
  options.id_seed = context_.seed;
  return options;
}

OutputAssembler::Options Request::AssemblerOptions(const ModelPtr& model) const {
  using Options = OutputAssembler::Options;
  Options options;
  options.request_id = spec_.request_id;
  options.model = model;
  options.seed = spec_.sampling.seed.value_or(context_.seed);
  options.choices = spec_.sampling.n.value_or(1);
  options.embedding = spec_.embedding.value_or(EmbeddingSpec());
  options.stop = spec_.stopping.stop;
  options.stream_interval = spec_.output.stream_interval;
  if (spec_.output.token_ids || spec_.output.logprobs) options.tokens = Options::Tokens::kList;
  if (!spec_.output.skip_special_tokens) options.special = Options::Special::kShow;
  if (spec_.output.progress) options.progress = Options::Progress::kShow;
  if (spec_.chat) options.chat = ChatOptions();
  const TokenBytes& bytes = model->tokenizer->token_bytes();
  const bool begins = std::all_of(prompt_.begin(), prompt_.end(), [&bytes](TokenId id) {
    return id < bytes.size() && bytes.kind(id) == TokenKind::kControl;
  });
  if (begins) options.place = Options::Place::kBeginsText;
  return options;
}

Status Request::Submit(const ModelPtr& model) {
  uint32_t continuation_from = 1;
  TESSERA_RETURN_IF_ERROR(CheckEmbedding(*model));
  TESSERA_RETURN_IF_ERROR(EncodeAll(*model, &continuation_from));
  TESSERA_ASSIGN_OR_RETURN(scheduler::GenerationRequest request,
                           MakeRequest(*model, continuation_from));
  auto assembler = std::make_unique<OutputAssembler>(AssemblerOptions(model));
  scheduler::StreamMailbox::Options options;
  scheduler::Inbox& inbox = context_.parts.engine->inbox();
  options.on_ready = [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->NotifyHere();
  };
  options.on_drained = [&inbox] { inbox.Wake(); };
  // A reader that had its sequence parked wakes the engine when it has read.
  const int64_t parks_above = context_.parts.settings->Current()->limits.stream_buffer.tokens;
  options.wake_above = std::min(options.wake_above, static_cast<uint32_t>(parks_above / 2));
  auto mailbox = std::make_shared<scheduler::StreamMailbox>(std::move(options));
  // Under the lock, so that a cancellation sees either a reservation or a submission.
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::kReserved) return absl::OkStatus();
  assembler_ = std::move(assembler);
  mailbox_ = mailbox;
  phase_ = Phase::kSubmitted;  // a refusal gives the reservation back, too
  const Status status = inbox.Submit({std::move(request), std::move(mailbox)});
  if (!status.ok() && context_.parts.metrics != nullptr) {
    context_.parts.metrics->admission_rejections_total.With({ReportOf(status).row->reason}).Inc();
  }
  return status;
}

bool Request::Take(OutputBatch& batch) {
  batch.Clear();
  std::shared_ptr<scheduler::StreamMailbox> mailbox;
  std::optional<Status> ending;
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::kEnded) return false;
    mailbox = mailbox_;
    ending = ending_;
    batch.progress.swap(load_progress_);
  }
  if (mailbox && mailbox->Drain(events_)) assembler_->Convert(events_, &batch);
  if (!batch.ends() && ending) {
    if (mailbox) assembler_->HandOutHeld(&batch);
    batch.error = ending;
  }
  // Without a mailbox the assembler may be being made on another thread.
  if (batch.error) batch.error = Tell(*batch.error, mailbox ? assembler_->tokens_sent() : 0);
  if (!batch.finished.empty()) {
    const uint32_t before = usage_.completion_tokens;
    usage_ = batch.finished.back().usage;
    usage_.completion_tokens = before;
    for (const OutputFinished& one : batch.finished) {
      usage_.completion_tokens += one.usage.completion_tokens;
    }
  }
  if (batch.ends()) {
    Close(batch.error.value_or(absl::OkStatus()),
          batch.finished.empty() ? scheduler::FinishReason::kNone : batch.finished.back().reason);
    assembler_.reset();  // it holds the model, which may be waited for
  }
  return !batch.empty();
}

// What the client is told of a failure: figures of what it got, nothing of our insides.
Status Request::Tell(const Status& status, uint32_t sent) const {
  ErrorReport report = ReportOf(status, sent > 0 ? OutputSent::kYes : OutputSent::kNo);
  if (report.details.condition == Condition::kInternal) {
    LogError("request_failed",
             {{"request", spec_.request_id}, {"model", spec_.model}, {"error", status.ToString()}});
  }
  if (sent > 0) report.details.metadata.emplace_back("tokens_sent", absl::StrCat(sent));
  return MakeError(report.details, report.message);
}

bool Request::Close(const Status& status, scheduler::FinishReason reason) {
  Phase was = Phase::kEnded;
  std::shared_ptr<scheduler::StreamMailbox> mailbox;
  ModelPtr model;  // released outside the lock: the last one takes its chain out of the engine
  {
    const std::lock_guard lock(mutex_);
    std::swap(was, phase_);
    if (was == Phase::kEnded) return false;
    mailbox.swap(mailbox_);
    model.swap(model_);
  }
  scheduler::Inbox& inbox = context_.parts.engine->inbox();
  if (was == Phase::kReserved) inbox.CancelReservation();
  if (was == Phase::kSubmitted) inbox.PostRelease(context_.id);
  if (mailbox) mailbox->Close();
  context_.on_end(*this, status, reason);
  return true;
}

void Request::Cancel() {
  Close(absl::CancelledError("the client has gone"), scheduler::FinishReason::kCancelled);
}

void Request::End(const Status& reason) {
  TESSERA_CHECK(!reason.ok());
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::kEnded || ending_) return;
    ending_ = reason;
    if (phase_ == Phase::kSubmitted) context_.parts.engine->inbox().PostRelease(context_.id);
  }
  Notify();
}

void Request::Notify() {
  if (!BeginNotifying()) return;
  context_.parts.pool->Post([self = shared_from_this()] { self->RunSink(); });
}

void Request::NotifyHere() {
  if (BeginNotifying()) RunSink();
}

// False when a thread is at it already: it will look again.
bool Request::BeginNotifying() {
  const std::lock_guard lock(notify_mutex_);
  notify_again_ = notifying_;
  if (notifying_) return false;
  notifying_ = true;
  return true;
}

void Request::RunSink() {
  while (true) {
    if (const auto sink = sink_.lock()) {
      if (const auto handle = handle_.lock()) sink->OnReady(handle);
    }
    const std::lock_guard lock(notify_mutex_);
    if (!notify_again_) {
      notifying_ = false;
      return;
    }
    notify_again_ = false;
  }
}

}  // namespace tessera::server
