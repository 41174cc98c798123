// Who is admitted next: the interface of waiting-line policies.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "scheduler/sequence.h"

namespace tessera::scheduler {

// Holds the sequences that wait. The planner takes `Next` or nobody: it never skips a head that
// does not fit. Engine thread.
class WaitingPolicy {
 public:
  virtual ~WaitingPolicy() = default;
  // A new request's sequence.
  virtual void Add(Sequence* sequence) = 0;
  // A preempted one: it has been served before and must not lose its turn.
  virtual void Return(Sequence* sequence) = 0;
  // Who is next; null when nobody waits.
  [[nodiscard]] virtual Sequence* Next() = 0;
  // Takes `sequence` out, wherever it stands; nothing when it does not wait.
  virtual void Remove(Sequence* sequence) = 0;
  virtual void ForEach(const std::function<void(Sequence*)>& visit) const = 0;
  [[nodiscard]] virtual size_t size() const = 0;
};

// First come, first served; returned sequences stand in front in order of arrival.
[[nodiscard]] std::unique_ptr<WaitingPolicy> MakeFirstComePolicy();

}  // namespace tessera::scheduler
