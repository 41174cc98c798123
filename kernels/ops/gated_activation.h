// y = activation(gate) * up, element by element: the middle of a gated feed-forward block.
#pragma once

#include <cstdint>
#include <string>

namespace tessera::kernels {

enum class ActivationKind : uint8_t { kSilu, kGeluTanh };

struct GatedActivationOp {
  static constexpr const char* kName = "gated_activation";
  struct Desc {
    ActivationKind kind = ActivationKind::kSilu;
  };
  struct Params {
    const void* gate = nullptr;  // [rows, width] activations
    const void* up = nullptr;    // [rows, width] activations
    void* y = nullptr;           // [rows, width] activations; may be `gate` or `up`
    int32_t rows = 0;
    int32_t width = 0;
    ActivationKind kind = ActivationKind::kSilu;
  };
};
[[nodiscard]] std::string Describe(const GatedActivationOp::Desc& desc);

}  // namespace tessera::kernels
