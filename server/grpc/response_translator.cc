#include "server/grpc/response_translator.h"

#include <algorithm>
#include <utility>

#include "server/grpc/duration.h"

namespace tessera::server {
namespace {

v1::FinishReason ReasonToProto(scheduler::FinishReason reason) {
  switch (reason) {
    case scheduler::FinishReason::kNone:
      return v1::FINISH_REASON_UNSPECIFIED;
    case scheduler::FinishReason::kEos:
      return v1::FINISH_REASON_EOS;
    case scheduler::FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case scheduler::FinishReason::kMaxTokens:
      return v1::FINISH_REASON_MAX_TOKENS;
    case scheduler::FinishReason::kContextFull:
      return v1::FINISH_REASON_CONTEXT_FULL;
    case scheduler::FinishReason::kTimeLimit:
      return v1::FINISH_REASON_TIME_LIMIT;
    case scheduler::FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

v1::ModelState StateToProto(ModelState state) {
  switch (state) {
    case ModelState::kUnloaded:
      return v1::MODEL_STATE_UNSPECIFIED;
    case ModelState::kLoading:
      return v1::MODEL_STATE_LOADING;
    case ModelState::kReady:
      return v1::MODEL_STATE_READY;
    case ModelState::kDraining:
      return v1::MODEL_STATE_DRAINING;
    case ModelState::kFailed:
      return v1::MODEL_STATE_FAILED;
  }
  return v1::MODEL_STATE_UNSPECIFIED;
}

void Fill(const OutputStarted& started, v1::Started* proto) {
  proto->set_request_id(started.request_id);
  proto->set_model_revision(started.model_revision);
  proto->set_prompt_tokens(started.prompt_tokens);
  proto->set_cached_tokens(started.cached_tokens);
  proto->set_seed(started.seed);
  *proto->mutable_queue_wait() = ToProto(started.queue_wait);
}

void Fill(const OutputProgress& progress, v1::Progress* proto) {
  proto->set_queue_position(progress.queue_position);
  proto->set_prompt_tokens_done(progress.prompt_tokens_done);
  proto->set_prompt_tokens_total(progress.prompt_tokens_total);
  if (progress.load_percent) proto->set_load_percent(*progress.load_percent);
}

void Fill(const SamplingDefaults& defaults, v1::Sampling* proto) {
  if (defaults.temperature) proto->set_temperature(static_cast<float>(*defaults.temperature));
  if (defaults.top_p) proto->set_top_p(static_cast<float>(*defaults.top_p));
  // -1 is off, which is 0 here.
  if (defaults.top_k) {
    proto->set_top_k(static_cast<uint32_t>(std::max<int64_t>(*defaults.top_k, 0)));
  }
  if (defaults.min_p) proto->set_min_p(static_cast<float>(*defaults.min_p));
  if (defaults.typical_p) proto->set_typical_p(static_cast<float>(*defaults.typical_p));
  if (defaults.repetition_penalty) {
    proto->set_repetition_penalty(static_cast<float>(*defaults.repetition_penalty));
  }
  if (defaults.presence_penalty) {
    proto->set_presence_penalty(static_cast<float>(*defaults.presence_penalty));
  }
  if (defaults.frequency_penalty) {
    proto->set_frequency_penalty(static_cast<float>(*defaults.frequency_penalty));
  }
}

}  // namespace

void ToProto(const OutputToken& token, v1::Token* proto) {
  proto->set_id(token.id);
  proto->set_raw(token.raw);
  if (!token.has_logprob) return;
  proto->set_logprob(token.logprob);
  proto->set_rank(token.rank);
  for (const OutputTop& top : token.top) {
    v1::TopToken* one = proto->add_top();
    one->set_id(top.id);
    one->set_logprob(top.logprob);
    one->set_raw(top.raw);
  }
}

void ToProto(OutputDelta delta, v1::Delta* proto) {
  proto->set_choice(delta.choice);
  proto->set_text(std::move(delta.text));
  proto->mutable_tokens()->Reserve(static_cast<int>(delta.tokens.size()));
  for (const OutputToken& token : delta.tokens) ToProto(token, proto->add_tokens());
}

void ToProto(const OutputFinished& finished, v1::Finished* proto) {
  proto->set_choice(finished.choice);
  proto->set_reason(ReasonToProto(finished.reason));
  if (finished.stop_text) {
    proto->set_stop_text(*finished.stop_text);
  } else if (finished.stop_token) {
    proto->set_stop_token_id(*finished.stop_token);
  }
  proto->mutable_usage()->set_prompt_tokens(finished.usage.prompt_tokens);
  proto->mutable_usage()->set_cached_tokens(finished.usage.cached_tokens);
  proto->mutable_usage()->set_completion_tokens(finished.usage.completion_tokens);
  *proto->mutable_timings()->mutable_queue() = ToProto(finished.queue);
  *proto->mutable_timings()->mutable_prefill() = ToProto(finished.prefill);
  *proto->mutable_timings()->mutable_decode() = ToProto(finished.decode);
  proto->mutable_timings()->set_preemptions(finished.preemptions);
  proto->set_last(finished.last);
}

void ToProto(const CollectedOutput& output, v1::Continuation* proto) {
  double sum = 0;
  bool greedy = true;
  for (const OutputToken& token : output.prompt_tokens) {
    sum += token.logprob;
    greedy = greedy && token.is_argmax;
    ToProto(token, proto->add_tokens());
  }
  proto->set_logprob_sum(sum);
  proto->set_is_greedy(greedy);
}

void ToProto(const ModelInfo& info, v1::Model* proto) {
  proto->set_name(info.name);
  proto->set_revision(info.summary.revision);
  proto->set_state(StateToProto(info.state));
  proto->set_max_context(static_cast<uint32_t>(info.summary.max_context));
  proto->add_capabilities("generate");
  proto->add_capabilities("score");
  if (info.summary.embeddings == ModelSummary::Embeddings::kYes) proto->add_capabilities("embed");
  if (info.summary.chat == ModelSummary::Chat::kYes) proto->add_capabilities("chat");
  if (!info.model) return;
  Fill(info.model->defaults, proto->mutable_defaults());
  proto->mutable_loaded_time()->set_seconds(info.model->loaded_unix_seconds);
}

namespace {

v1::GenerateResponse* BaseOf(v1::GenerateResponse* message) { return message; }
v1::GenerateResponse* BaseOf(v1::ChatResponse* message) { return message->mutable_base(); }

void FillParts(const OutputDelta&, v1::GenerateResponse*) {}
void FillParts(const OutputDelta& delta, v1::ChatResponse* message) {
  message->set_reasoning_delta(delta.reasoning);
  for (const ToolCallDelta& call : delta.calls) {
    v1::ToolCall* const proto = message->add_tool_call_deltas();
    proto->set_id(call.id);
    proto->set_name(call.name);
    proto->set_arguments_json(call.arguments);
  }
}

template <typename Message>
void AppendTo(OutputBatch batch, uint64_t* seq, std::deque<Message>* messages) {
  const auto add = [&]() -> v1::GenerateResponse& {
    v1::GenerateResponse& message = *BaseOf(&messages->emplace_back());
    message.set_seq(++*seq);
    return message;
  };
  if (batch.progress) Fill(*batch.progress, add().mutable_progress());
  if (batch.started) Fill(*batch.started, add().mutable_started());
  if (!batch.prompt_tokens.empty()) {
    // Tokens of the prompt come before those of the first choice, without text of their own.
    v1::Delta* delta = add().mutable_delta();
    for (const OutputToken& token : batch.prompt_tokens) ToProto(token, delta->add_tokens());
  }
  for (OutputDelta& delta : batch.deltas) {
    v1::GenerateResponse& message = add();
    FillParts(delta, &messages->back());
    ToProto(std::move(delta), message.mutable_delta());
  }
  for (const OutputFinished& finished : batch.finished) {
    ToProto(finished, add().mutable_finished());
  }
}

}  // namespace

void AppendMessages(OutputBatch batch, uint64_t* seq, std::deque<v1::GenerateResponse>* messages) {
  AppendTo(std::move(batch), seq, messages);
}

void AppendMessages(OutputBatch batch, uint64_t* seq, std::deque<v1::ChatResponse>* messages) {
  AppendTo(std::move(batch), seq, messages);
}

}  // namespace tessera::server
