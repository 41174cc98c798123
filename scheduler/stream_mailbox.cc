#include "scheduler/stream_mailbox.h"

#include <utility>

namespace tessera::scheduler {

bool MailboxBatch::empty() const {
  return !started && !progress && tokens.empty() && finished.empty() && !error;
}

void MailboxBatch::Clear() {
  started.reset();
  progress.reset();
  tokens.clear();
  top.clear();
  finished.clear();
  error.reset();
}

StreamMailbox::StreamMailbox(Options options) : options_(std::move(options)) {
  pending_.tokens.reserve(options_.reserve_tokens);
  pending_.finished.reserve(1);
}

// on_ready runs under the lock, so that none can follow Close.
template <typename Change>
void StreamMailbox::Push(const Change& change) {
  const std::lock_guard lock(mutex_);
  if (closed_ || ended_) return;
  const bool was_empty = pending_.empty();
  change();
  if (was_empty && options_.on_ready) options_.on_ready();
}

void StreamMailbox::PushStarted(const StartedEvent& event) {
  Push([&] { pending_.started = event; });
}

void StreamMailbox::PushProgress(const ProgressEvent& event) {
  Push([&] { pending_.progress = event; });
}

void StreamMailbox::PushToken(const TokenEvent& event, std::span<const kernels::TokenLogprob> top) {
  Push([&] {
    pending_.tokens.push_back(event);
    pending_.tokens.back().top_begin = static_cast<uint32_t>(pending_.top.size());
    pending_.tokens.back().top_count = static_cast<uint32_t>(top.size());
    pending_.top.insert(pending_.top.end(), top.begin(), top.end());
    backlog_.fetch_add(1, std::memory_order_relaxed);
  });
}

void StreamMailbox::PushFinished(const FinishedEvent& event) {
  Push([&] {
    pending_.finished.push_back(event);
    ended_ = event.last;
  });
}

void StreamMailbox::PushError(Status error) {
  Push([&] {
    pending_.error = std::move(error);
    ended_ = true;
  });
}

bool StreamMailbox::Drain(MailboxBatch& batch) {
  batch.Clear();
  uint32_t taken = 0;
  {
    const std::lock_guard lock(mutex_);
    if (pending_.empty()) return false;
    std::swap(pending_, batch);
    if (pending_.tokens.capacity() < options_.reserve_tokens) {
      pending_.tokens.reserve(options_.reserve_tokens);
    }
    taken = backlog_.exchange(0, std::memory_order_relaxed);
  }
  if (taken > options_.wake_above && options_.on_drained) options_.on_drained();
  return true;
}

void StreamMailbox::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  pending_.Clear();
  backlog_.store(0, std::memory_order_relaxed);
}

}  // namespace tessera::scheduler
