// A fixed set of workers that run one parallel region at a time: spin briefly, then sleep.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace tessera::kernels {

// The calling thread is worker 0. Regions must be started from one thread at a time, none inside
// another; they do not allocate. Workers that have spun for `spin_us` without work sleep until the
// next region.
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
    RunErased(&Call<Body>, Erase(body), Join::kAll);
  }

  // The same for bodies that take shared work until none is left: a worker that has not started
  // when the caller's own `body(0)` returns is left out, so that a processor busy elsewhere delays
  // nobody.
  template <typename Body>
  void RunShared(Body&& body) {
    RunErased(&Call<Body>, Erase(body), Join::kArrived);
  }

  // Processors this process may use: affinity and cgroup limits respected; at least 1.
  [[nodiscard]] static int UsableProcessors();
  // The same, but a core counts once however many hyper-threads it has: as many threads as
  // arithmetic keeps busy.
  [[nodiscard]] static int UsableCores();

 private:
  struct State;
  enum class Join : uint8_t { kAll, kArrived };

  template <typename Body>
  static void Call(void* context, int thread) {
    (*static_cast<std::remove_reference_t<Body>*>(context))(thread);
  }
  template <typename Body>
  static void* Erase(Body& body) {
    return const_cast<void*>(static_cast<const void*>(&body));
  }
  void RunErased(void (*body)(void*, int), void* context, Join join);

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
