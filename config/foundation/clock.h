// Time as a parameter: production uses the machine's clocks, tests move a manual one.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace tessera {

using TimePoint = std::chrono::steady_clock::time_point;
using Duration = std::chrono::nanoseconds;

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic.
  [[nodiscard]] virtual TimePoint Now() const = 0;
  // Seconds since 1970, for people and files; may jump.
  [[nodiscard]] virtual int64_t UnixSeconds() const = 0;
};

// The machine's clocks. Never destroyed.
[[nodiscard]] const Clock& SystemClock();

// Processor time that the calling thread has used; a system call.
[[nodiscard]] uint64_t ThreadNanoseconds();

class ManualClock final : public Clock {
 public:
  [[nodiscard]] TimePoint Now() const override {
    return TimePoint(std::chrono::duration_cast<TimePoint::duration>(Duration(now_ns_.load())));
  }
  [[nodiscard]] int64_t UnixSeconds() const override { return now_ns_.load() / 1'000'000'000; }
  void Advance(Duration by) { now_ns_.fetch_add(by.count()); }

 private:
  std::atomic<int64_t> now_ns_{1'000'000'000};
};

}  // namespace tessera
