// What the processor could do at most, measured: the figures that kernels are put beside.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "kernels/thread_pool.h"

namespace tessera::kernels {

// Bytes a second that the pool's threads read together from an array of `bytes` (at least a line
// a thread), each its own share of it, over and over: the best of several passes and ways of
// reading. Takes about 50 ms, or twenty passes where these take longer.
[[nodiscard]] double MeasureReadRate(ThreadPool& pool, uint64_t bytes);

// One kind of multiply-accumulate of an instruction set.
struct ArithmeticPeak {
  const char* name;  // "int8", "float32", …
  double ops_per_s;  // of all threads together; a multiply and an add are two
};
// Of the set's widest instructions on operands in registers; kAuto means the widest set. About
// 20 ms each. Empty for a set that this processor lacks.
[[nodiscard]] std::vector<ArithmeticPeak> MeasurePeaks(ThreadPool& pool, CpuIsa isa);

}  // namespace tessera::kernels
