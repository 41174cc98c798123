#include "server/core/batch.h"

#include <algorithm>
#include <utility>

namespace tessera::server {

Batch::Batch(Frontend* frontend, std::vector<GenerationSpec> specs, Failure failure, Done done)
    : frontend_(frontend),
      failure_(failure),
      done_(std::move(done)),
      specs_(std::move(specs)),
      outputs_(specs_.size()),
      open_(specs_.size()),
      waiting_from_(specs_.size()) {}

std::shared_ptr<Batch> Batch::Start(Frontend* frontend, std::vector<GenerationSpec> specs,
                                    Failure failure, Order order, Done done) {
  auto batch = std::make_shared<Batch>(frontend, std::move(specs), failure, std::move(done));
  const size_t count = batch->specs_.size();
  if (count == 0) {
    batch->done_({});
    return batch;
  }
  for (size_t i = 0; i < count && failure == Failure::kEndsAll; ++i) {
    Status valid = frontend->Check(batch->specs_[i]);
    if (valid.ok()) continue;
    CollectedOutput output;
    output.error = std::move(valid);
    batch->OnOutput(i, std::move(output));
    return batch;
  }
  if (order == Order::kFirstAhead) batch->waiting_from_ = 1;
  batch->StartRange(0, std::min(batch->waiting_from_, count));
  return batch;
}

void Batch::StartRange(size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) {
    if (!StartOne(i)) return;
  }
}

bool Batch::StartOne(size_t index) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return false;
  }
  StatusOr<std::shared_ptr<RequestHandle>> handle =
      StartCollected(*frontend_, std::move(specs_[index]),
                     [weak = weak_from_this(), index](CollectedOutput output) {
                       if (const auto self = weak.lock()) self->OnOutput(index, std::move(output));
                     });
  if (!handle.ok()) {
    CollectedOutput output;
    output.error = handle.status();
    OnOutput(index, std::move(output));
    return true;
  }
  std::unique_lock lock(mutex_);
  if (!ended_) {
    handles_.push_back(std::move(*handle));
    return true;
  }
  lock.unlock();
  (*handle)->Cancel();
  return false;
}

void Batch::OnOutput(size_t index, CollectedOutput output) {
  std::unique_lock lock(mutex_);
  if (ended_) return;
  const bool failed = !output.error.ok() && failure_ == Failure::kEndsAll;
  outputs_[index] = std::move(output);
  --open_;
  if (failed || open_ == 0) {
    ended_ = true;
    const std::vector<std::shared_ptr<RequestHandle>> handles = std::move(handles_);
    lock.unlock();
    for (const auto& handle : handles) handle->Cancel();
    done_(std::move(outputs_));
    return;
  }
  const size_t begin = std::exchange(waiting_from_, specs_.size());
  lock.unlock();
  StartRange(begin, specs_.size());
}

void Batch::Cancel() {
  std::unique_lock lock(mutex_);
  ended_ = true;
  const std::vector<std::shared_ptr<RequestHandle>> handles = std::move(handles_);
  lock.unlock();
  for (const auto& handle : handles) handle->Cancel();
}

size_t FirstFailure(const std::vector<CollectedOutput>& outputs) {
  const auto failed = std::find_if(outputs.begin(), outputs.end(),
                                   [](const CollectedOutput& one) { return !one.error.ok(); });
  return static_cast<size_t>(failed - outputs.begin());
}

}  // namespace tessera::server
