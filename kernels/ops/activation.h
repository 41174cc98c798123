// What ops of a block hand to each other, and the input of a Linear.
//
// "Activations" are rows of the backend's own element type (Backend::activation_bytes): float32 on
// the CPU, bfloat16 on CUDA. The residual stream, norm weights, biases and logits are float32
// everywhere.
#pragma once

#include <cstdint>

namespace tessera::kernels {

inline constexpr int kQuantGroup = 32;  // elements that share one activation scale

// x ~ scale[g] * q[i], q in [-127, 127], per row and group of 32:
//   scale = amax / 127 (float32), q = round-half-to-even(x * (127 / amax)), all zero when amax <
//   1e-36.
// One infinity or not-a-number makes its group's scale not finite, so that products show it.
// `sum` has the exact integer sums of each half of a group's q. All arrays row-major, rows tightly
// packed.
struct QuantizedRows {
  int8_t* q = nullptr;     // [rows, width]
  float* scale = nullptr;  // [rows, width / 32]
  int16_t* sum = nullptr;  // [rows, width / 16]
};

struct Activation {
  const void* x = nullptr;  // [rows, width] activations, row stride = width
  QuantizedRows q8;         // read by quantized weight types where the backend has them
};

}  // namespace tessera::kernels
