// Calls at a time: one thread, for deadlines of what waits outside the engine.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "config/foundation/clock.h"

namespace tessera::server {

// Thread-safe. Calls run on the timer's thread and must be short.
class Timer {
 public:
  Timer();
  ~Timer();  // as Stop()
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Drops pending calls, waits for one that runs; later ones are dropped, too.
  void Stop();

  using Ticket = uint64_t;
  // Runs `call` once `at` (of the steady clock) has come.
  Ticket At(TimePoint at, std::function<void()> call);
  // Without effect when it has run or runs now.
  void Cancel(Ticket ticket);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<TimePoint, Ticket>, std::function<void()>> calls_;
  std::map<Ticket, TimePoint> times_;
  Ticket next_ = 1;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tessera::server
