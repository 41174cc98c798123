// y = activation(gate) * up, element by element: the middle of a gated feed-forward block; or
// y = activation(gate), that of a plain one.
//   kSilu      x / (1 + exp(-x))
//   kGeluTanh  x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
//   kGelu      x / 2 * (1 + erf(x / sqrt(2)))
//   kRelu      max(x, 0)
//   kRelu2     max(x, 0)^2
#pragma once

#include <cstdint>
#include <string>

#include "kernels/ops/activation.h"
#include "kernels/ops/activation_kind.h"

namespace tessera::kernels {

[[nodiscard]] const char* NameOf(ActivationKind kind);

enum class Gating : uint8_t { kGated, kPlain };

struct GatedActivationOp {
  static constexpr const char* kName = "gated_activation";
  struct Desc {
    ActivationKind kind = ActivationKind::kSilu;
    Gating gating = Gating::kGated;
    bool quantized = false;  // also onto the int8 grid, in the same pass; a backend may lack it
  };
  struct Params {
    const void* gate = nullptr;  // [rows, width] activations
    const void* up = nullptr;    // [rows, width] activations; null with kPlain
    void* y = nullptr;           // [rows, width] activations; may be `gate` or `up`
    int32_t rows = 0;
    int32_t width = 0;
    ActivationKind kind = ActivationKind::kSilu;
    QuantizedRows q8;  // with Desc::quantized: of y; width is then a multiple of 32
  };
};
[[nodiscard]] std::string Describe(const GatedActivationOp::Desc& desc);

}  // namespace tessera::kernels
