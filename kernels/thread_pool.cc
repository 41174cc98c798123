#include "kernels/thread_pool.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "config/foundation/check.h"
#include "kernels/processors.h"

namespace tessera::kernels {
namespace {

using Clock = std::chrono::steady_clock;

// True when `done` became true before `spin_us` had passed.
template <typename Done>
bool Spin(int spin_us, Done done) {
  const Clock::time_point end = Clock::now() + std::chrono::microseconds(spin_us);
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      _mm_pause();
    }
  } while (Clock::now() < end);
  return false;
}

}  // namespace

// A region is one value of `region`: its number in the upper half, whether workers may still join
// in the lowest bit, and between them how many have. One word, so that a worker joins exactly the
// region that it saw open, and the caller that closes it knows whom to wait for.
struct ThreadPool::State {
  static constexpr uint64_t kOpen = 1;
  static constexpr uint64_t kJoined = 2;
  static constexpr uint64_t kNumber = uint64_t{1} << 32;

  static int Joined(uint64_t region) { return static_cast<int>(region % kNumber / kJoined); }

  // Each on its own line: workers poll `region` while others count up `finished`.
  alignas(64) std::atomic<uint64_t> region{0};
  alignas(64) std::atomic<int> finished{0};
  alignas(64) std::atomic<int> sleepers{0};
  void (*body)(void*, int) = nullptr;
  void* context = nullptr;
  std::atomic<bool> stop{false};
  int spin_us = 0;
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> workers;

  void Publish() {
    const uint64_t number = region.load(std::memory_order_relaxed) / kNumber + 1;
    // Sequentially consistent with the sleeper's count-then-check: one of the two sees the other.
    region.store(number * kNumber + kOpen);
    if (sleepers.load() > 0) {
      std::lock_guard<std::mutex> lock(mutex);
      wake.notify_all();
    }
  }

  // Until an open region after `seen` (or the end).
  void WaitFor(uint64_t seen) {
    const auto next = [&] {
      const uint64_t now = region.load();
      return stop.load() || (now / kNumber != seen && (now & kOpen) != 0);
    };
    if (Spin(spin_us, next)) return;
    std::unique_lock<std::mutex> lock(mutex);
    sleepers.fetch_add(1);
    wake.wait(lock, next);
    sleepers.fetch_sub(1);
  }

  void Work(int thread) {
    uint64_t seen = 0;
    while (true) {
      WaitFor(seen);
      if (stop.load()) return;
      uint64_t now = region.load(std::memory_order_acquire);
      if ((now & kOpen) == 0 || now / kNumber == seen) continue;
      if (!region.compare_exchange_strong(now, now + kJoined, std::memory_order_acq_rel)) continue;
      seen = now / kNumber;
      body(context, thread);
      finished.fetch_add(1, std::memory_order_release);
    }
  }
};

ThreadPool::ThreadPool(const Options& options)
    : threads_(options.threads), state_(std::make_unique<State>()) {
  TESSERA_CHECK(options.threads >= 1);
  state_->spin_us = options.spin_us;
  for (int i = 1; i < threads_; ++i) {
    state_->workers.emplace_back([state = state_.get(), i] { state->Work(i); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop = true;
  state_->Publish();
  for (std::thread& worker : state_->workers) worker.join();
}

void ThreadPool::RunErased(void (*body)(void*, int), void* context, Join join) {
  if (threads_ == 1) {
    body(context, 0);
    return;
  }
  State& state = *state_;
  state.body = body;
  state.context = context;
  state.finished.store(0, std::memory_order_relaxed);
  state.Publish();
  body(context, 0);
  int awaited = threads_ - 1;
  if (join == Join::kArrived) {
    awaited = State::Joined(state.region.fetch_and(~State::kOpen, std::memory_order_acq_rel));
  }
  const auto done = [&] { return state.finished.load(std::memory_order_acquire) == awaited; };
  // A worker that has no processor needs this one's.
  while (!Spin(state.spin_us, done)) std::this_thread::yield();
  if (join == Join::kAll) state.region.fetch_and(~State::kOpen, std::memory_order_relaxed);
}

int ThreadPool::UsableProcessors() {
  const int count = static_cast<int>(AllowedProcessors().size());
  return std::min(count, ProcessorQuota().value_or(count));
}

int ThreadPool::UsableCores() {
  const int count = CountCores(AllowedProcessors());
  return std::min(count, ProcessorQuota().value_or(count));
}

}  // namespace tessera::kernels
