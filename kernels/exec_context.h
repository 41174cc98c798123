// Where kernels run: the thread pool and scratch of a host, or the stream of a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "config/foundation/status.h"
#include "kernels/memory.h"
#include "kernels/ops/attention_plan.h"
#include "kernels/step_arena.h"
#include "kernels/thread_pool.h"

namespace tessera::kernels {

class OpProfile;

// How launches divide their sums.
enum class Numerics : uint8_t {
  kFast,        // as is fastest: a row's last bits may depend on what its step has beside it
  kPromptRows,  // a row's bits depend on its own sequence alone; all rows are of prompts
  kDecodeRows,  // the same; each row is the only one of its sequence
};

// Kernels of one context run in the order of their launches. On the host a launch has run when it
// returns; on a device it has only been queued. One thread launches.
//
// Owns nothing that a step could grow: `scratch(thread)` has `scratch_bytes` for each pool thread,
// 64-byte aligned, planned at start.
class ExecContext {
 public:
  ExecContext(ThreadPool& pool, size_t scratch_bytes);
  virtual ~ExecContext();
  ExecContext(const ExecContext&) = delete;
  ExecContext& operator=(const ExecContext&) = delete;

  [[nodiscard]] ThreadPool& pool() { return pool_; }
  [[nodiscard]] std::byte* scratch(int thread) {
    return scratch_ + scratch_stride_ * static_cast<size_t>(thread);
  }
  [[nodiscard]] size_t scratch_bytes() const { return scratch_bytes_; }

  // Where launches are counted from now on; null: nowhere, which costs a comparison a launch. On a
  // device it is the launching alone that is timed.
  void set_profile(OpProfile* profile) { profile_ = profile; }
  [[nodiscard]] OpProfile* profile() const { return profile_; }

  // Whether kFast gives a row the same bits in any step: then nothing else need be asked for.
  [[nodiscard]] virtual bool batch_invariant() const { return true; }
  // OK where launches may have numerics other than kFast, else what that lacks.
  [[nodiscard]] virtual Status deterministic() const { return absl::OkStatus(); }
  // Of the attention plans and launches that follow.
  virtual void SetNumerics(Numerics /*numerics*/) {}

  // How many steps may be queued before the first has to be awaited.
  [[nodiscard]] virtual int max_in_flight() const { return 1; }
  // One arena for each step in flight. What kernels see of them may be one and the same: a step's
  // copies are queued behind the kernels of the step before.
  [[nodiscard]] virtual StatusOr<std::vector<StepArena>> MakeArenas(uint64_t bytes);
  // Kernels launched after this read what the host wrote since the last Publish of this arena.
  virtual void Publish(StepArena& inputs) { inputs.set_published(inputs.used()); }
  // The host may read what kernels launched before this wrote, once a later mark was awaited.
  virtual void Fetch(StepArena& /*outputs*/) {}

  // A place in the order of launches.
  [[nodiscard]] virtual uint64_t Mark() { return 0; }
  // Waits until everything before the mark has run. UNAVAILABLE when the device is lost: what it
  // computed must not be used.
  [[nodiscard]] virtual Status Wait(uint64_t /*mark*/) { return absl::OkStatus(); }
  // Time that the device had nothing to do between the mark before this one and what followed it;
  // 0 on the host. After Wait(mark).
  [[nodiscard]] virtual uint64_t IdleNanoseconds(uint64_t /*mark*/) { return 0; }

  // Makes what the attention kernels of this backend want to know of `plan`'s rows, into `inputs`
  // and plan.prepared. Once for all launches of one shape that read the plan.
  virtual void PrepareAttention(const AttentionShape& /*shape*/, AttentionPlan& /*plan*/,
                                StepArena& /*inputs*/) {}
  // Bytes that PrepareAttention may take of an arena.
  [[nodiscard]] virtual uint64_t AttentionPlanBytes(const AttentionShape& /*shape*/,
                                                    uint32_t /*rows*/) const {
    return 0;
  }

  // Runs `launch`. A device may record its launches under `key` and play them again the next time
  // instead of calling it: equal keys promise equal launches, whose varying values lie in arenas.
  virtual void RunRecorded(std::span<const uint32_t> key, absl::FunctionRef<void()> launch);
  // How many rows to launch for `rows` of a recorded step: few sizes, so that few are recorded.
  [[nodiscard]] virtual uint32_t RecordedRows(uint32_t rows) const { return rows; }
  // Forgets what was recorded: launches of blocks that are gone.
  virtual void DropRecorded() {}

 private:
  ThreadPool& pool_;
  OpProfile* profile_ = nullptr;
  size_t scratch_bytes_;
  size_t scratch_stride_;
  std::byte* scratch_;
};

}  // namespace tessera::kernels
