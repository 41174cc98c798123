#include "scheduler/stream_mailbox.h"

#include <utility>

namespace tessera::scheduler {

bool MailboxBatch::empty() const {
  return !started && !progress && tokens.empty() && pooled.empty() && finished.empty() && !error;
}

void MailboxBatch::Clear() {
  started.reset();
  progress.reset();
  tokens.clear();
  top.clear();
  pooled.clear();
  finished.clear();
  error.reset();
}

StreamMailbox::StreamMailbox(Options options) : options_(std::move(options)) {
  pending_.tokens.reserve(options_.reserve_tokens);
  pending_.finished.reserve(1);
}

template <typename Change>
bool StreamMailbox::Push(const Change& change) {
  const std::lock_guard lock(mutex_);
  if (closed_ || ended_) return false;
  change();
  return !std::exchange(pending_any_, true);
}

bool StreamMailbox::PushStarted(const StartedEvent& event) {
  return Push([&] { pending_.started = event; });
}

bool StreamMailbox::PushProgress(const ProgressEvent& event) {
  return Push([&] { pending_.progress = event; });
}

bool StreamMailbox::PushToken(const TokenEvent& event, std::span<const kernels::TokenLogprob> top) {
  return Push([&] {
    const bool lone = !has_first_ && pending_.tokens.empty();
    has_first_ |= lone;
    TokenEvent& pushed = lone ? first_ : pending_.tokens.emplace_back();
    pushed = event;
    if (!top.empty()) {
      pushed.top_begin = static_cast<uint32_t>(pending_.top.size());
      pending_.top.insert(pending_.top.end(), top.begin(), top.end());
    }
    pushed.top_count = static_cast<uint32_t>(top.size());
    backlog_.fetch_add(1, std::memory_order_relaxed);
  });
}

bool StreamMailbox::PushPooled(std::vector<float> pooled) {
  return Push([&] { pending_.pooled = std::move(pooled); });
}

bool StreamMailbox::PushFinished(const FinishedEvent& event) {
  return Push([&] {
    pending_.finished.push_back(event);
    ended_ = event.last;
  });
}

bool StreamMailbox::PushError(Status error) {
  return Push([&] {
    pending_.error = std::move(error);
    ended_ = true;
  });
}

void StreamMailbox::Tell() {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
  }
  if (options_.on_ready) options_.on_ready();
}

bool StreamMailbox::Drain(MailboxBatch& batch) {
  batch.Clear();
  uint32_t taken = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(pending_any_, false)) return false;
    if (has_first_) pending_.tokens.insert(pending_.tokens.begin(), first_);
    has_first_ = false;
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
  pending_any_ = false;
  has_first_ = false;
  pending_.Clear();
  backlog_.store(0, std::memory_order_relaxed);
}

}  // namespace tessera::scheduler
