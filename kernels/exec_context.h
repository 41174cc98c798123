// Where a kernel runs: the thread pool and per-thread scratch, made once before the first step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/thread_pool.h"

namespace tessera::kernels {

// Owns nothing that a step could grow: `scratch(thread)` has `scratch_bytes` for each pool thread,
// 64-byte aligned, planned at start. One step at a time.
class ExecContext {
 public:
  ExecContext(ThreadPool& pool, size_t scratch_bytes);
  ~ExecContext();
  ExecContext(const ExecContext&) = delete;
  ExecContext& operator=(const ExecContext&) = delete;

  [[nodiscard]] ThreadPool& pool() { return pool_; }
  [[nodiscard]] std::byte* scratch(int thread) {
    return scratch_ + scratch_stride_ * static_cast<size_t>(thread);
  }
  [[nodiscard]] size_t scratch_bytes() const { return scratch_bytes_; }

 private:
  ThreadPool& pool_;
  size_t scratch_bytes_;
  size_t scratch_stride_;
  std::byte* scratch_;
};

}  // namespace tessera::kernels
