// A few threads for work that may take milliseconds: tokenizing, rendering, handing out output.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace tessera::server {

// Thread-safe. First in, first out.
class WorkPool {
 public:
  struct Options {
    size_t threads = 2;
    size_t max_offered = 1024;  // jobs waiting above which Offer refuses
  };
  explicit WorkPool(const Options& options);
  ~WorkPool();  // as Stop()
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;

  // Runs what is queued and joins; jobs posted later run at once, on the thread that posts them.
  void Stop();

  // Always taken: for work whose number something else bounds.
  void Post(std::function<void()> job);
  // All of them under one lock; they are moved from.
  void PostAll(std::span<std::function<void()>> jobs);
  // False, without effect, when too much is waiting.
  [[nodiscard]] bool Offer(std::function<void()> job);

 private:
  void Run();
  [[nodiscard]] bool TakeWake();

  const Options options_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> jobs_;
  size_t idle_ = 0;      // threads that wait
  bool waking_ = false;  // one of them has been told to look
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace tessera::server
