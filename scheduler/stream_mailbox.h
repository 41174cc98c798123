// The bridge from the engine to one request's reader: a coalescing, bounded outbox.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "scheduler/request.h"

namespace tessera::scheduler {

// What a reader takes at once: everything since it last looked, in order.
struct MailboxBatch {
  std::optional<StartedEvent> started;
  std::optional<ProgressEvent> progress;  // the newest only
  std::vector<TokenEvent> tokens;
  std::vector<kernels::TokenLogprob> top;  // see TokenEvent::top_begin
  std::vector<FinishedEvent> finished;     // follow all tokens of their choice
  std::optional<Status> error;             // ends the request; nothing follows

  [[nodiscard]] bool empty() const;
  void Clear();  // keeps capacity
};

// The engine pushes, one reader drains. Only a change from empty to not empty calls `on_ready`,
// from the engine thread: it must only schedule work. The engine reads `backlog_tokens()` and parks
// a sequence whose reader is too slow; `on_drained`, called by Drain when the backlog falls back to
// zero after it exceeded `wake_above`, wakes an engine that waits for it.
class StreamMailbox {
 public:
  struct Options {
    std::function<void()> on_ready;
    std::function<void()> on_drained;
    uint32_t reserve_tokens = 64;
    uint32_t wake_above = 1024;
  };
  explicit StreamMailbox(Options options);

  // Engine side. Nothing is taken after Close, an error or a last FinishedEvent.
  void PushStarted(const StartedEvent& event);
  void PushProgress(const ProgressEvent& event);
  // `top` belongs to `event`; its top_begin and top_count are set here.
  void PushToken(const TokenEvent& event, std::span<const kernels::TokenLogprob> top);
  void PushFinished(const FinishedEvent& event);
  void PushError(Status error);
  // Tokens pushed and not yet drained.
  [[nodiscard]] uint32_t backlog_tokens() const { return backlog_.load(std::memory_order_relaxed); }

  // Reader side. Swaps the pending batch with `batch` (which is cleared first); false when it was
  // empty.
  bool Drain(MailboxBatch& batch);
  // The reader has gone: what is pushed from now on is dropped and on_ready is not called again
  // once this returns.
  void Close();

 private:
  template <typename Change>
  void Push(const Change& change);

  Options options_;
  std::mutex mutex_;
  MailboxBatch pending_;
  bool closed_ = false;
  bool ended_ = false;
  std::atomic<uint32_t> backlog_{0};
};

}  // namespace tessera::scheduler
