#include "server/http/openai_response.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/text.h"
#include "server/http/http_message.h"

namespace tessera::server {
namespace {

// Clients show fields in the order in which they come.
using OrderedJson = nlohmann::ordered_json;
using Echo = OpenAiRequest::Echo;
using StreamUsage = OpenAiRequest::StreamUsage;

// JSON has no infinity; nobody tells this from it.
constexpr float kLowestLogprob = -9999.0F;

std::string Dump(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

double Finite(float logprob) { return std::max(logprob, kLowestLogprob); }

// A token alone may be part of a character; such bytes are spelled out.
std::string TokenText(const std::string& raw) {
  if (!FindInvalidUtf8(raw)) return raw;
  std::string text = "bytes:";
  for (const char c : raw) {
    absl::StrAppend(&text, "\\x", absl::Hex(static_cast<uint8_t>(c), absl::kZeroPad2));
  }
  return text;
}

// Characters that begin in `raw`.
uint32_t Characters(const std::string& raw) {
  return static_cast<uint32_t>(std::count_if(
      raw.begin(), raw.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

// The parallel arrays of completions.
class LogprobArrays {
 public:
  void Add(const std::string& raw, const OutputToken* token, uint32_t offset) {
    tokens_.push_back(TokenText(raw));
    offsets_.push_back(offset);
    if (token == nullptr || !token->has_logprob) {
      logprobs_.push_back(nullptr);
      tops_.push_back(nullptr);
      return;
    }
    logprobs_.push_back(Finite(token->logprob));
    OrderedJson top = OrderedJson::object();
    for (const OutputTop& one : token->top) {
      // Of two tokens that read the same, the likelier one comes first and stays.
      top.emplace(TokenText(one.raw), Finite(one.logprob));
    }
    top.emplace(TokenText(raw), Finite(token->logprob));
    tops_.push_back(std::move(top));
  }
  [[nodiscard]] OrderedJson Take() && {
    return {{"tokens", std::move(tokens_)},
            {"token_logprobs", std::move(logprobs_)},
            {"top_logprobs", std::move(tops_)},
            {"text_offset", std::move(offsets_)}};
  }

 private:
  OrderedJson tokens_ = OrderedJson::array();
  OrderedJson logprobs_ = OrderedJson::array();
  OrderedJson tops_ = OrderedJson::array();
  OrderedJson offsets_ = OrderedJson::array();
};

OrderedJson BytesOf(const std::string& raw) {
  OrderedJson bytes = OrderedJson::array();
  for (const char c : raw) bytes.push_back(static_cast<uint8_t>(c));
  return bytes;
}

OrderedJson ChatLogprob(const std::string& raw, float logprob) {
  return {{"token", TokenText(raw)}, {"logprob", Finite(logprob)}, {"bytes", BytesOf(raw)}};
}

OrderedJson ChatLogprobs(const std::vector<OutputToken>& tokens) {
  OrderedJson content = OrderedJson::array();
  for (const OutputToken& token : tokens) {
    OrderedJson one = ChatLogprob(token.raw, token.logprob);
    one["top_logprobs"] = OrderedJson::array();
    for (const OutputTop& top : token.top) {
      one["top_logprobs"].push_back(ChatLogprob(top.raw, top.logprob));
    }
    content.push_back(std::move(one));
  }
  return {{"content", std::move(content)}};
}

void AddPrompt(const EchoedPrompt& echoed, const std::vector<OutputToken>& tokens,
               LogprobArrays* arrays) {
  // Nothing comes before the first token, so nothing says how likely it was.
  for (size_t i = 0; i < echoed.tokens.size(); ++i) {
    const bool known = i > 0 && i - 1 < tokens.size();
    arrays->Add(echoed.tokens[i].raw, known ? &tokens[i - 1] : nullptr, echoed.tokens[i].offset);
  }
}

void AddTokens(const std::vector<OutputToken>& tokens, uint32_t* offset, LogprobArrays* arrays) {
  for (const OutputToken& token : tokens) {
    arrays->Add(token.raw, &token, *offset);
    *offset += Characters(token.raw);
  }
}

const char* FinishReasonName(scheduler::FinishReason reason) {
  switch (reason) {
    case scheduler::FinishReason::kMaxTokens:
    case scheduler::FinishReason::kContextFull:
    case scheduler::FinishReason::kTimeLimit:
      return "length";
    case scheduler::FinishReason::kNone:
    case scheduler::FinishReason::kEos:
    case scheduler::FinishReason::kStop:
    case scheduler::FinishReason::kCancelled:
      break;
  }
  return "stop";
}

void SetFinish(const OutputFinished& finished, OrderedJson* choice) {
  // An answer that a limit cut short may have cut a call short.
  const bool whole = finished.reason == scheduler::FinishReason::kEos ||
                     finished.reason == scheduler::FinishReason::kStop;
  (*choice)["finish_reason"] =
      finished.tool_calls > 0 && whole ? "tool_calls" : FinishReasonName(finished.reason);
  if (finished.stop_text) {
    (*choice)["stop_reason"] = *finished.stop_text;
  } else if (finished.reason == scheduler::FinishReason::kStop && finished.stop_token) {
    (*choice)["stop_reason"] = *finished.stop_token;
  }
}

OrderedJson UsageJson(const OutputUsage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

std::string Fingerprint(const OutputStarted& started) {
  return absl::StrCat("fp_", absl::string_view(started.model_revision).substr(0, 12));
}

OrderedJson Head(const OpenAiAnswer& answer, const char* object, const std::string& fingerprint) {
  return {{"id", answer.id},
          {"object", object},
          {"created", answer.created},
          {"model", answer.model},
          {"system_fingerprint", fingerprint}};
}

OrderedJson WholeCompletion(const OpenAiAnswer& answer, size_t prompt,
                            const CollectedOutput& output, const OutputDelta& delta) {
  OrderedJson choice = {
      {"index", prompt * answer.n + delta.choice}, {"text", ""}, {"logprobs", nullptr}};
  LogprobArrays arrays;
  uint32_t offset = 0;
  std::string text;
  if (answer.echo != Echo::kNo) {
    const EchoedPrompt& echoed = answer.echoed[prompt];
    text = echoed.text;
    offset = Characters(text);
    AddPrompt(echoed, output.prompt_tokens, &arrays);
  }
  text += delta.text;
  AddTokens(delta.tokens, &offset, &arrays);
  choice["text"] = std::move(text);
  if (answer.logprobs) choice["logprobs"] = std::move(arrays).Take();
  return choice;
}

enum class CallIndex : uint8_t { kLeaveOut, kWrite };

// Of a delta that does not begin its call, the arguments alone.
OrderedJson CallsJson(const std::vector<ToolCallDelta>& calls, CallIndex index) {
  OrderedJson list = OrderedJson::array();
  for (const ToolCallDelta& call : calls) {
    OrderedJson& one = list.emplace_back(OrderedJson::object());
    if (index == CallIndex::kWrite) one["index"] = call.index;
    OrderedJson function = OrderedJson::object();
    if (!call.name.empty()) {
      one["id"] = call.id;
      one["type"] = "function";
      function["name"] = call.name;
    }
    function["arguments"] = call.arguments;
    one["function"] = std::move(function);
  }
  return list;
}

// Reasoning and calls are there when there are any; the content is null beside calls alone.
void SetParts(const ChatParts& parts, CallIndex index, OrderedJson* message) {
  (*message)["content"] = parts.text;
  if (parts.text.empty() && !parts.calls.empty()) (*message)["content"] = nullptr;
  if (!parts.reasoning.empty()) (*message)["reasoning_content"] = parts.reasoning;
  if (!parts.calls.empty()) (*message)["tool_calls"] = CallsJson(parts.calls, index);
}

OrderedJson WholeMessage(const OpenAiAnswer& answer, const OutputDelta& delta) {
  OrderedJson message = {{"role", "assistant"}};
  SetParts(delta, CallIndex::kLeaveOut, &message);
  OrderedJson choice = {
      {"index", delta.choice}, {"message", std::move(message)}, {"logprobs", nullptr}};
  if (answer.logprobs) choice["logprobs"] = ChatLogprobs(delta.tokens);
  return choice;
}

}  // namespace

std::string WholeAnswer(const OpenAiAnswer& answer, const std::vector<CollectedOutput>& outputs) {
  const bool chat = answer.endpoint == OpenAiEndpoint::kChat;
  OrderedJson choices = OrderedJson::array();
  OutputUsage usage;
  std::string fingerprint;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const CollectedOutput& output = outputs[i];
    if (output.started) {
      usage.prompt_tokens += output.started->prompt_tokens;
      usage.cached_tokens += output.started->cached_tokens;
      fingerprint = Fingerprint(*output.started);
    }
    for (const OutputFinished& finished : output.finished) {
      const OutputDelta& delta = output.choices[finished.choice];
      OrderedJson choice =
          chat ? WholeMessage(answer, delta) : WholeCompletion(answer, i, output, delta);
      SetFinish(finished, &choice);
      choices.push_back(std::move(choice));
      usage.completion_tokens += finished.usage.completion_tokens;
    }
  }
  OrderedJson body = Head(answer, chat ? "chat.completion" : "text_completion", fingerprint);
  body["choices"] = std::move(choices);
  body["usage"] = UsageJson(usage);
  return Dump(body);
}

namespace {

void AppendChunk(const OpenAiAnswer& answer, const std::string& fingerprint, OrderedJson choice,
                 const OutputUsage& usage, std::string* out) {
  OrderedJson chunk =
      Head(answer,
           answer.endpoint == OpenAiEndpoint::kChat ? "chat.completion.chunk" : "text_completion",
           fingerprint);
  chunk["choices"] = OrderedJson::array({std::move(choice)});
  if (answer.usage == StreamUsage::kAtTheEnd) chunk["usage"] = nullptr;
  if (answer.usage == StreamUsage::kAlways) chunk["usage"] = UsageJson(usage);
  out->append(SseEvent(Dump(chunk)));
}

}  // namespace

ChunkWriter::ChunkWriter(OpenAiAnswer answer) : answer_(std::move(answer)) {
  choices_.resize(answer_.prompts * answer_.n);
  prompts_.resize(answer_.prompts);
}

void ChunkWriter::Append(size_t prompt, const OutputBatch& batch, std::string* out) {
  if (batch.started) {
    usage_.prompt_tokens += batch.started->prompt_tokens;
    usage_.cached_tokens += batch.started->cached_tokens;
    fingerprint_ = Fingerprint(*batch.started);
  }
  std::vector<OutputToken>& before = prompts_[prompt];
  before.insert(before.end(), batch.prompt_tokens.begin(), batch.prompt_tokens.end());
  for (const OutputDelta& delta : batch.deltas) {
    AppendDelta(prompt, delta, out);
  }
  for (const OutputFinished& finished : batch.finished) AppendFinished(prompt, finished, out);
}

// The role travels with the first content, so that a client that times it times a token; an echo
// comes before all output.
void ChunkWriter::Begin(size_t prompt, uint32_t choice, std::string* out) {
  const size_t index = prompt * answer_.n + choice;
  if (choices_[index].begun) return;
  choices_[index].begun = true;
  if (answer_.echo == Echo::kNo) return;
  const EchoedPrompt& echoed = answer_.echoed[prompt];
  choices_[index].characters = Characters(echoed.text);
  OrderedJson chunk = {{"index", index}, {"text", echoed.text}, {"logprobs", nullptr}};
  if (answer_.logprobs) {
    LogprobArrays arrays;
    AddPrompt(echoed, prompts_[prompt], &arrays);
    chunk["logprobs"] = std::move(arrays).Take();
  }
  chunk["finish_reason"] = nullptr;
  AppendChunk(answer_, fingerprint_, std::move(chunk), usage_, out);
}

void ChunkWriter::AppendDelta(size_t prompt, const OutputDelta& delta, std::string* out) {
  const size_t index = prompt * answer_.n + delta.choice;
  const bool first = !choices_[index].begun;
  Begin(prompt, delta.choice, out);
  usage_.completion_tokens += delta.token_count;
  choices_[index].tokens += delta.token_count;
  OrderedJson chunk = {{"index", index}};
  if (answer_.endpoint == OpenAiEndpoint::kChat) {
    OrderedJson part = OrderedJson::object();
    if (first) part["role"] = "assistant";
    SetParts(delta, CallIndex::kWrite, &part);
    // What other parts came with is no content yet.
    if (delta.text.empty() && !delta.reasoning.empty()) part["content"] = nullptr;
    chunk["delta"] = std::move(part);
    chunk["logprobs"] = nullptr;
    if (answer_.logprobs) chunk["logprobs"] = ChatLogprobs(delta.tokens);
  } else {
    chunk["text"] = delta.text;
    chunk["logprobs"] = nullptr;
    if (answer_.logprobs) {
      LogprobArrays arrays;
      AddTokens(delta.tokens, &choices_[index].characters, &arrays);
      chunk["logprobs"] = std::move(arrays).Take();
    }
  }
  chunk["finish_reason"] = nullptr;
  AppendChunk(answer_, fingerprint_, std::move(chunk), usage_, out);
}

void ChunkWriter::AppendFinished(size_t prompt, const OutputFinished& finished, std::string* out) {
  const size_t index = prompt * answer_.n + finished.choice;
  const bool silent = !choices_[index].begun;
  Begin(prompt, finished.choice, out);
  // Tokens that had no text to bring them, like the one that ended it.
  usage_.completion_tokens += finished.usage.completion_tokens - choices_[index].tokens;
  OrderedJson chunk = {{"index", index}};
  if (answer_.endpoint == OpenAiEndpoint::kChat) {
    chunk["delta"] = OrderedJson::object();
    // An answer without a word has its role all the same.
    if (silent) chunk["delta"] = {{"role", "assistant"}, {"content", ""}};
  } else {
    chunk["text"] = "";
  }
  chunk["logprobs"] = nullptr;
  SetFinish(finished, &chunk);
  AppendChunk(answer_, fingerprint_, std::move(chunk), usage_, out);
}

void ChunkWriter::Finish(std::string* out) const {
  if (answer_.usage != StreamUsage::kNever) {
    OrderedJson chunk = Head(
        answer_,
        answer_.endpoint == OpenAiEndpoint::kChat ? "chat.completion.chunk" : "text_completion",
        fingerprint_);
    chunk["choices"] = OrderedJson::array();
    chunk["usage"] = UsageJson(usage_);
    out->append(SseEvent(Dump(chunk)));
  }
  out->append(SseEvent("[DONE]"));
}

}  // namespace tessera::server
