#include "config/foundation/clock.h"

#include <ctime>

namespace tessera {
namespace {

class MachineClock final : public Clock {
 public:
  TimePoint Now() const override { return std::chrono::steady_clock::now(); }
  int64_t UnixSeconds() const override { return static_cast<int64_t>(std::time(nullptr)); }
};

}  // namespace

const Clock& SystemClock() {
  static const MachineClock* clock = new MachineClock;
  return *clock;
}

}  // namespace tessera
