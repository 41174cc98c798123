#include "kernels/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <iterator>
#include <mutex>
#include <string>
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

struct ThreadPool::State {
  // Each on its own line: workers poll `epoch` while others count down `running`.
  alignas(64) std::atomic<uint32_t> epoch{0};
  alignas(64) std::atomic<int> running{0};
  alignas(64) std::atomic<int> sleepers{0};
  void (*body)(void*, int) = nullptr;
  void* context = nullptr;
  bool stop = false;  // written before the last epoch
  int spin_us = 0;
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> workers;

  void Publish() {
    // Sequentially consistent with the sleeper's count-then-check: one of the two sees the other.
    epoch.fetch_add(1);
    if (sleepers.load() > 0) {
      std::lock_guard<std::mutex> lock(mutex);
      wake.notify_all();
    }
  }

  void WaitFor(uint32_t seen) {
    if (Spin(spin_us, [&] { return epoch.load(std::memory_order_acquire) != seen; })) return;
    std::unique_lock<std::mutex> lock(mutex);
    sleepers.fetch_add(1);
    wake.wait(lock, [&] { return epoch.load() != seen; });
    sleepers.fetch_sub(1);
  }

  void Work(int thread) {
    uint32_t seen = 0;
    while (true) {
      WaitFor(seen);
      ++seen;
      if (stop) return;
      body(context, thread);
      running.fetch_sub(1, std::memory_order_release);
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

void ThreadPool::RunErased(void (*body)(void*, int), void* context) {
  if (threads_ == 1) {
    body(context, 0);
    return;
  }
  State& state = *state_;
  state.body = body;
  state.context = context;
  state.running.store(threads_ - 1, std::memory_order_relaxed);
  state.Publish();
  body(context, 0);
  const auto done = [&] { return state.running.load(std::memory_order_acquire) == 0; };
  // A worker that has no processor needs this one's.
  while (!Spin(state.spin_us, done)) std::this_thread::yield();
}

int ThreadPool::UsableProcessors() {
  int count = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count = std::max(1, CPU_COUNT(&set));
  std::ifstream file("/proc/self/cgroup");
  const std::string groups{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return std::min(count, CgroupProcessors(groups, "/sys/fs/cgroup").value_or(count));
}

}  // namespace tessera::kernels
