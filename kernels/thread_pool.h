// A fixed set of workers that run one parallel region at a time: spin briefly, then sleep.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace tessera::kernels {

// The calling thread is worker 0. `Run` must be called from one thread at a time and does not
// allocate. Workers that have spun for `spin_us` without work sleep until the next region.
class ThreadPool {
 public:
  struct Options {
    int threads = 1;   // including the caller; >= 1
    int spin_us = 50;  // before a worker sleeps
  };
  explicit ThreadPool(const Options& options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int threads() const { return threads_; }

  // Calls `body(thread)` once on each worker (0 <= thread < threads()) and returns when all have
  // finished; everything they wrote is visible to the caller.
  template <typename Body>
  void Run(Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    RunErased([](void* context, int thread) { (*static_cast<Plain*>(context))(thread); },
              const_cast<void*>(static_cast<const void*>(&body)));
  }

  // Processors this process may use: affinity and cgroup limits respected; at least 1.
  [[nodiscard]] static int UsableProcessors();

 private:
  struct State;
  void RunErased(void (*body)(void*, int), void* context);

  int threads_;
  std::unique_ptr<State> state_;
};

// The half-open range of `count` units that `thread` of `threads` takes.
struct Share {
  int64_t begin;
  int64_t end;
};
[[nodiscard]] inline Share ShareOf(int64_t count, int thread, int threads) {
  return {count * thread / threads, count * (thread + 1) / threads};
}

}  // namespace tessera::kernels
