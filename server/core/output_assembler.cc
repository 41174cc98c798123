#include "server/core/output_assembler.h"

#include <algorithm>
#include <utility>

#include "server/text/chat_output/answer_format.h"
#include "server/text/tokenizer.h"

namespace tessera::server {

OutputAssembler::OutputAssembler(Options options) : options_(std::move(options)) {
  choices_.resize(options_.choices);
  for (uint32_t i = 0; i < options_.choices; ++i) {
    choices_[i].held.choice = i;
    if (!options_.chat || options_.model->chat_output == nullptr) continue;
    AnswerOptions chat = *options_.chat;
    chat.id_seed += i;
    choices_[i].parser = options_.model->chat_output->MakeParser(std::move(chat));
  }
}

OutputToken OutputAssembler::MakeToken(const scheduler::TokenEvent& event,
                                       const scheduler::MailboxBatch& events) const {
  const scheduler::TokenTable& bytes = *options_.model->tokens;
  OutputToken token;
  token.id = event.token;
  token.raw = std::string(bytes.Of(event.token));
  if (!event.has_logprob) return token;
  token.has_logprob = true;
  token.logprob = event.logprob;
  token.rank = event.rank;
  token.is_argmax = event.is_argmax;
  token.top.reserve(event.top_count);
  for (uint32_t i = 0; i < event.top_count; ++i) {
    const kernels::TokenLogprob& top = events.top[event.top_begin + i];
    token.top.push_back({top.id, top.logprob, std::string(bytes.Of(top.id))});
  }
  return token;
}

void OutputAssembler::AddToken(const scheduler::TokenEvent& event,
                               const scheduler::MailboxBatch& events, OutputBatch* batch) {
  if (event.is_prompt) {
    batch->prompt_tokens.push_back(MakeToken(event, events));
    return;
  }
  const TokenBytes& table = options_.model->tokenizer->token_bytes();
  Choice& choice = choices_[event.choice];
  ++choice.held.token_count;
  if (options_.tokens == Options::Tokens::kList) {
    choice.held.tokens.push_back(MakeToken(event, events));
  }
  const bool control = event.token < table.size() && table.kind(event.token) == TokenKind::kControl;
  if (control && choice.parser != nullptr && event.visible_bytes > 0) {
    AddControl(event.token, choice);
    return;
  }
  if (control && options_.special == Options::Special::kSkip) return;
  const absl::string_view all = options_.model->tokens->Of(event.token);
  const size_t hidden = all.size() - std::min<size_t>(all.size(), event.visible_bytes);
  std::string bytes(all);
  if (choice.at_start && options_.place == Options::Place::kBeginsText &&
      event.token < table.size()) {
    bytes = table.First(event.token);
  }
  bytes.resize(bytes.size() - std::min(bytes.size(), hidden));
  choice.at_start = false;
  std::string text;
  choice.repair.Append(bytes, &text);
  AddText(text, choice);
}

// A mark goes to the parser as a token; any other is text, or nothing.
void OutputAssembler::AddControl(TokenId token, Choice& choice) const {
  const absl::string_view name = options_.model->tokens->Of(token);
  const bool mark = options_.model->chat_output->IsMark(name);
  if (!mark && options_.special == Options::Special::kSkip) return;
  std::string text;
  choice.repair.Flush(&text);
  AddText(text, choice);
  AddText(mark ? ControlMarker(name) : std::string(name), choice);
}

void OutputAssembler::AddText(absl::string_view text, Choice& choice) {
  if (choice.parser == nullptr) {
    choice.held.text.append(text.data(), text.size());
    return;
  }
  ChatParts parts;
  choice.parser->Push(text, &parts);
  AddParts(std::move(parts), choice);
}

void OutputAssembler::AddParts(ChatParts parts, Choice& choice) {
  for (const ToolCallDelta& call : parts.calls) choice.tool_calls += call.name.empty() ? 0 : 1;
  choice.held.Append(std::move(parts));
}

void OutputAssembler::Close(Choice& choice) {
  choice.open = false;
  std::string text;
  choice.repair.Flush(&text);
  AddText(text, choice);
  FinishParts(choice);
}

void OutputAssembler::FinishParts(Choice& choice) {
  if (choice.parser == nullptr) return;
  ChatParts parts;
  choice.parser->Finish(&parts);
  choice.parser.reset();
  AddParts(std::move(parts), choice);
}

bool OutputAssembler::HasSomething(const Choice& choice) {
  return !choice.held.empty() || !choice.held.tokens.empty();
}

void OutputAssembler::HandOutHeld(OutputBatch* batch) {
  for (Choice& choice : choices_) {
    FinishParts(choice);
    if (HasSomething(choice)) HandOut(choice, batch);
  }
}

void OutputAssembler::HandOut(Choice& choice, OutputBatch* batch) {
  const uint32_t index = choice.held.choice;
  tokens_sent_ += choice.held.token_count;
  batch->deltas.push_back(std::move(choice.held));
  choice.held = OutputDelta();
  choice.held.choice = index;
}

OutputFinished OutputAssembler::MakeFinished(const scheduler::FinishedEvent& event) const {
  OutputFinished finished;
  finished.choice = event.choice;
  finished.reason = event.reason;
  if (event.stop_index >= 0 && static_cast<size_t>(event.stop_index) < options_.stop.size()) {
    finished.stop_text = options_.stop[static_cast<size_t>(event.stop_index)];
  }
  finished.stop_token = event.stop_token;
  finished.tool_calls = choices_[event.choice].tool_calls;
  finished.usage = usage_;
  finished.usage.completion_tokens = event.completion_tokens;
  finished.queue = queue_wait_;
  finished.prefill = event.prefill;
  finished.decode = event.decode;
  finished.preemptions = event.preemptions;
  finished.last = event.last;
  return finished;
}

void OutputAssembler::Convert(const scheduler::MailboxBatch& events, OutputBatch* batch) {
  if (events.started) {
    usage_.prompt_tokens = events.started->prompt_tokens;
    usage_.cached_tokens = events.started->cached_tokens;
    queue_wait_ = events.started->queue_wait;
    batch->started = OutputStarted{options_.request_id,  options_.model->revision,
                                   usage_.prompt_tokens, usage_.cached_tokens,
                                   options_.seed,        queue_wait_};
  }
  if (events.progress && options_.progress == Options::Progress::kShow) {
    batch->progress = OutputProgress{events.progress->queue_position,
                                     events.progress->prompt_tokens_done,
                                     events.progress->prompt_tokens_total,
                                     {}};
  }
  for (const scheduler::TokenEvent& event : events.tokens) AddToken(event, events, batch);
  if (!events.pooled.empty()) {
    batch->embedding = FinishEmbedding(events.pooled, options_.embedding);
  }
  for (const scheduler::FinishedEvent& event : events.finished) {
    Close(choices_[event.choice]);
    batch->finished.push_back(MakeFinished(event));
  }
  for (Choice& choice : choices_) {
    const bool enough = choice.held.token_count >= options_.stream_interval || !choice.open;
    if (enough && HasSomething(choice)) HandOut(choice, batch);
  }
  if (events.error) HandOutHeld(batch);
  if (events.error) batch->error = *events.error;
}

}  // namespace tessera::server
