// The input of a Linear: float rows, and the same rows on an int8 grid where a weight type wants
// them.
#pragma once

#include <cstdint>

namespace tessera::kernels {

inline constexpr int kQuantGroup = 32;  // elements that share one activation scale

// x ~ scale[g] * q[i], q in [-127, 127], per row and group of 32:
//   scale = amax / 127 (float32), q = round-half-to-even(x * (127 / amax)), all zero when amax <
//   1e-36.
// One infinity or not-a-number makes its group's scale not finite, so that products show it.
// `sum[g]` is the exact integer sum of a group's q. All arrays row-major, rows tightly packed.
struct QuantizedRows {
  int8_t* q = nullptr;     // [rows, width]
  float* scale = nullptr;  // [rows, width / 32]
  int32_t* sum = nullptr;  // [rows, width / 32]
};

struct Activation {
  const float* x = nullptr;  // [rows, width], row stride = width; read by float weight types
  QuantizedRows q8;          // read by quantized weight types
};

}  // namespace tessera::kernels
