// What every block type binds and runs with: Linear weights, float vectors, workspace carving.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "blockzoo/block_type.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/quantize_rows.h"

namespace tessera::blockzoo {

// A Linear weight [out, in] in the backend's layout, with the kernel that reads it.
struct BoundWeight {
  WeightHandle packed;
  kernels::DType dtype = kernels::DType::kF32;
  int32_t out = 0;
  int32_t in = 0;
  kernels::Kernel<kernels::LinearOp> kernel;
};

// A small vector held as float32.
using BoundVector = std::vector<float>;

// The tensor of `role` as a packed weight. INVALID_ARGUMENT when missing or not [out, in].
[[nodiscard]] StatusOr<BoundWeight> BindWeight(const BindContext& context, const char* role,
                                               uint64_t out, uint64_t in);
// The tensor of `role` as `size` floats; empty when an optional one is missing.
enum class Presence : uint8_t { kRequired, kOptional };
[[nodiscard]] StatusOr<BoundVector> BindVector(const BindContext& context, const char* role,
                                               uint64_t size, Presence presence);

// The dtype of keys and values for a block whose keys come from `weight`.
[[nodiscard]] kernels::DType KvDTypeFor(CacheChoice::KvDType choice, kernels::DType weight);

// Hands out consecutive 64-byte-aligned pieces of a launch's workspace.
class Carver {
 public:
  explicit Carver(std::byte* at) : at_(at) {}
  template <typename T>
  [[nodiscard]] T* Take(uint64_t count) {
    T* piece = reinterpret_cast<T*>(at_);
    at_ += (count * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  [[nodiscard]] kernels::QuantizedRows TakeQuantized(uint64_t rows, uint64_t width);

 private:
  std::byte* at_;
};

// Workspace bytes a row for one piece of `floats` floats, alignment included.
[[nodiscard]] constexpr uint64_t FloatBytes(uint64_t floats) { return floats * 4 + 64; }
// The same for a quantized row of `width`.
[[nodiscard]] constexpr uint64_t QuantizedBytes(uint64_t width) {
  return width + width / kernels::kQuantGroup * 8 + 3 * 64;
}

// The input of the Linears that read `x` [rows, width]: quantized into `q8` when `quantize` was
// bound, which a block does when one of those weights wants it.
[[nodiscard]] kernels::Activation MakeActivation(
    const Launch& launch, const kernels::Kernel<kernels::QuantizeRowsOp>& quantize, const float* x,
    int32_t width, const kernels::QuantizedRows& q8);

}  // namespace tessera::blockzoo
