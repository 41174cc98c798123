// Ctrl-C as an event instead of the end of the process.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

namespace tessera::server::cli {

// While it lives, SIGINT calls `on_interrupt` on a thread of its own. Make it before other threads
// exist, so that they inherit the blocked signal.
class InterruptWatcher {
 public:
  explicit InterruptWatcher(std::function<void()> on_interrupt);
  ~InterruptWatcher();
  InterruptWatcher(const InterruptWatcher&) = delete;
  InterruptWatcher& operator=(const InterruptWatcher&) = delete;

 private:
  std::function<void()> on_interrupt_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace tessera::server::cli
