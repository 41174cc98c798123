// The host's side of kernels/synthetic.h: checked parameters, and the generator on threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "config/foundation/status.h"
#include "kernels/dtype.h"
#include "kernels/synthetic.h"

namespace tessera::kernels {

// Standard deviation of a tensor's elements for `scale` 1. 0 for types that cannot be made.
[[nodiscard]] double SyntheticDeviation(DType dtype);
// The nearest scale to `scale` that the type's scales can hold: float16 for the int4 types.
[[nodiscard]] float SyntheticScale(DType dtype, double scale);

// [rows, columns] of F32, BF16 or a type with planes. UNIMPLEMENTED for another type,
// INVALID_ARGUMENT when the shape is none of the type's, when constants are asked of a type with
// planes, when `scale` is outside its limits or cannot be held by the type.
[[nodiscard]] StatusOr<SyntheticTensor> MakeSyntheticTensor(DType dtype, uint64_t rows,
                                                            uint64_t columns,
                                                            SyntheticAlgorithm algorithm,
                                                            uint64_t seed, float scale);

// Fills `out`, which has `tensor.bytes`, on `threads` threads (the caller's is one of them).
void FillSynthetic(const SyntheticTensor& tensor, std::span<std::byte> out, int threads);

}  // namespace tessera::kernels
