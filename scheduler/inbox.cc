#include "scheduler/inbox.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/reason.h"

namespace tessera::scheduler {
namespace {

Status QueueFull(absl::string_view what, uint64_t limit) {
  return WithReason(absl::UnavailableError(absl::StrCat("the waiting line is full: ", what,
                                                        " reached its limit of ", limit)),
                    "QUEUE_FULL");
}

Status Draining() {
  return WithReason(absl::UnavailableError("the server is draining and takes no new requests"),
                    "DRAINING");
}

}  // namespace

Inbox::Inbox(const Limits& limits) : limits_(limits) {
  pending_.submissions.reserve(limits.max_requests);
}

void Inbox::SetLimits(const Limits& limits) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
}

Status Inbox::Reserve() {
  const std::lock_guard lock(mutex_);
  if (closed_) return Draining();
  if (waiting_requests_ >= limits_.max_requests) {
    return QueueFull("admission.max_waiting_requests", limits_.max_requests);
  }
  ++waiting_requests_;
  return absl::OkStatus();
}

void Inbox::CancelReservation() {
  const std::lock_guard lock(mutex_);
  --waiting_requests_;
}

Status Inbox::Submit(Submission submission) {
  const uint64_t prompt_tokens = submission.request.prompt.size();
  {
    const std::lock_guard lock(mutex_);
    if (closed_) {
      --waiting_requests_;
      return Draining();
    }
    if (waiting_prompt_tokens_ > 0 &&
        waiting_prompt_tokens_ + prompt_tokens > limits_.max_prompt_tokens) {
      --waiting_requests_;
      return QueueFull("admission.max_waiting_tokens", limits_.max_prompt_tokens);
    }
    waiting_prompt_tokens_ += prompt_tokens;
    pending_.submissions.push_back(std::move(submission));
  }
  ready_.notify_one();
  return absl::OkStatus();
}

void Inbox::PostRelease(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    pending_.releases.push_back(id);
  }
  ready_.notify_one();
}

void Inbox::PostCall(std::function<void()> call) {
  {
    const std::lock_guard lock(mutex_);
    pending_.calls.push_back(std::move(call));
  }
  ready_.notify_one();
}

void Inbox::Wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  ready_.notify_one();
}

void Inbox::CloseToSubmissions() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void Inbox::Batch::Clear() {
  submissions.clear();
  releases.clear();
  calls.clear();
}

void Inbox::Take(Batch& batch) {
  batch.Clear();
  const std::lock_guard lock(mutex_);
  std::swap(batch, pending_);
  woken_ = false;
}

void Inbox::WaitAndTake(Batch& batch, TimePoint until) {
  batch.Clear();
  std::unique_lock lock(mutex_);
  ready_.wait_until(lock, until, [&] {
    return woken_ || !pending_.submissions.empty() || !pending_.releases.empty() ||
           !pending_.calls.empty();
  });
  std::swap(batch, pending_);
  woken_ = false;
}

void Inbox::NoteAdmitted(uint64_t prompt_tokens) {
  const std::lock_guard lock(mutex_);
  --waiting_requests_;
  waiting_prompt_tokens_ -= prompt_tokens;
}

uint32_t Inbox::waiting_requests() const {
  const std::lock_guard lock(mutex_);
  return waiting_requests_;
}

uint64_t Inbox::waiting_prompt_tokens() const {
  const std::lock_guard lock(mutex_);
  return waiting_prompt_tokens_;
}

}  // namespace tessera::scheduler
