#include "kernels/exec_context.h"

#include <cstdlib>

#include "config/foundation/check.h"

namespace tessera::kernels {

ExecContext::ExecContext(ThreadPool& pool, size_t scratch_bytes)
    : pool_(pool),
      scratch_bytes_(scratch_bytes),
      // One more line, so that two threads never write the same.
      scratch_stride_((scratch_bytes + 63) / 64 * 64 + 64),
      scratch_(static_cast<std::byte*>(
          std::aligned_alloc(64, scratch_stride_ * static_cast<size_t>(pool.threads())))) {
  TESSERA_CHECK(scratch_ != nullptr);
}

ExecContext::~ExecContext() { std::free(scratch_); }

StatusOr<std::vector<StepArena>> ExecContext::MakeArenas(uint64_t bytes) {
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<Buffer> buffer,
                           HostMemory().Allocate(bytes, "inputs of a step"));
  return std::vector<StepArena>{StepArena(buffer, buffer)};
}

void ExecContext::RunRecorded(std::span<const uint32_t> /*key*/, absl::FunctionRef<void()> launch) {
  launch();
}

}  // namespace tessera::kernels
