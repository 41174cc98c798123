// What a request's reader gets: text in whole characters, tokens, endings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/foundation/clock.h"
#include "config/foundation/ids.h"
#include "config/foundation/status.h"
#include "scheduler/request.h"
#include "server/text/chat_output/chat_parts.h"

namespace tessera::server {

struct OutputTop {
  TokenId id = 0;
  float logprob = 0;
  std::string raw;
};

struct OutputToken {
  TokenId id = 0;
  std::string raw;  // bytes; may be part of a character
  bool has_logprob = false;
  float logprob = 0;
  uint32_t rank = 0;  // 1: most likely; 0: not known
  bool is_argmax = false;
  std::vector<OutputTop> top;
};

struct OutputStarted {
  std::string request_id;
  std::string model_revision;
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;
  uint64_t seed = 0;
  Duration queue_wait{};
};

struct OutputProgress {
  uint32_t queue_position = 0;
  uint32_t prompt_tokens_done = 0;
  uint32_t prompt_tokens_total = 0;
  std::optional<uint32_t> load_percent;  // the model is being loaded
};

// Texts are whole UTF-8 characters; of anything but a chat, there is nothing but text.
struct OutputDelta : ChatParts {
  uint32_t choice = 0;
  std::vector<OutputToken> tokens;  // when asked for
  uint32_t token_count = 0;         // tokens this delta stands for, listed or not
};

struct OutputUsage {
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;
  uint32_t completion_tokens = 0;
};

struct OutputFinished {
  uint32_t choice = 0;
  scheduler::FinishReason reason = scheduler::FinishReason::kNone;
  std::optional<std::string> stop_text;
  std::optional<TokenId> stop_token;
  uint32_t tool_calls = 0;  // that the answer made
  OutputUsage usage;
  Duration queue{};
  Duration prefill{};
  Duration decode{};
  uint32_t preemptions = 0;
  bool last = false;
};

// Everything since the reader last looked, in this order.
struct OutputBatch {
  std::optional<OutputStarted> started;
  std::optional<OutputProgress> progress;
  std::vector<OutputToken>
      prompt_tokens;                // from the second on, when their log-probabilities were asked
  std::vector<float> embedding;     // when it was asked for; comes with the end
  std::vector<OutputDelta> deltas;  // at most one a choice
  std::vector<OutputFinished> finished;
  std::optional<Status> error;  // ends the request

  [[nodiscard]] bool empty() const;
  // Nothing follows this batch.
  [[nodiscard]] bool ends() const;
  void Clear();
};

}  // namespace tessera::server
