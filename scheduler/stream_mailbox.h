// The bridge from the engine to one request's reader: a coalescing, bounded outbox.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "config/foundation/fetching.h"
#include "scheduler/request.h"

namespace tessera::scheduler {

// What a reader takes at once: everything since it last looked, in order.
struct MailboxBatch {
  std::vector<TokenEvent> tokens;
  std::vector<kernels::TokenLogprob> top;  // see TokenEvent::top_begin
  std::vector<float> pooled;               // GenerationRequest::pooling; comes with the end
  std::vector<FinishedEvent> finished;     // follow all tokens of their choice
  std::optional<StartedEvent> started;
  std::optional<ProgressEvent> progress;  // the newest only
  std::optional<Status> error;            // ends the request; nothing follows

  [[nodiscard]] bool empty() const;
  void Clear();  // keeps capacity
};

// The engine pushes, one reader drains. A push that finds it empty says so, and then the reader
// must be told: `Tell`, which the engine leaves to EngineOptions::tell for all streams of a turn at
// once. The engine reads `backlog_tokens()` and parks a sequence whose reader is too slow;
// `on_drained`, called by Drain when the backlog falls back to zero after it exceeded `wake_above`,
// wakes an engine that waits for it.
class StreamMailbox {
 public:
  struct Options {
    std::function<void()> on_ready;  // may run while Close does: hold the reader weakly
    std::function<void()> on_drained;
    uint32_t reserve_tokens = 64;
    uint32_t wake_above = 1024;
  };
  explicit StreamMailbox(Options options);

  // Engine side. Nothing is taken after Close, an error or a last FinishedEvent. True when it was
  // empty and no longer is: Tell must follow.
  [[nodiscard]] bool PushStarted(const StartedEvent& event);
  [[nodiscard]] bool PushProgress(const ProgressEvent& event);
  // `top` belongs to `event`; its top_begin and top_count are set here.
  [[nodiscard]] bool PushToken(const TokenEvent& event, std::span<const kernels::TokenLogprob> top);
  [[nodiscard]] bool PushPooled(std::vector<float> pooled);
  [[nodiscard]] bool PushFinished(const FinishedEvent& event);
  [[nodiscard]] bool PushError(Status error);
  // Tokens pushed and not yet drained.
  [[nodiscard]] uint32_t backlog_tokens() const { return backlog_.load(std::memory_order_relaxed); }

  // Begins to bring near, to be written, what a push touches: the count of owners before this, and
  // what comes first in it. Any thread.
  TESSERA_FETCHING void Prefetch() const {
    const auto* begin = reinterpret_cast<const std::byte*>(this);
    __builtin_prefetch(begin - 16, 1);
    __builtin_prefetch(begin + 48, 1);
    __builtin_prefetch(&pending_, 1);
  }

  // Calls on_ready, unless closed. Any thread.
  void Tell();

  // Reader side. Swaps the pending batch with `batch` (which is cleared first); false when it was
  // empty.
  bool Drain(MailboxBatch& batch);
  // The reader has gone: what is pushed from now on is dropped.
  void Close();

 private:
  template <typename Change>
  bool Push(const Change& change);

  // What a push touches comes first, in few lines of memory: the reader has them in its own cache.
  // A lone token waits in `first_`: the memory of pending_.tokens is out of Prefetch's reach.
  std::mutex mutex_;
  bool closed_ = false;
  bool ended_ = false;
  bool pending_any_ = false;  // there is something to drain
  bool has_first_ = false;    // `first_` comes before pending_.tokens
  std::atomic<uint32_t> backlog_{0};
  TokenEvent first_;
  MailboxBatch pending_;
  Options options_;
};

}  // namespace tessera::scheduler
