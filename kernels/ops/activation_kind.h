// The functions between the matrices of a feed-forward block (gated_activation.h has the formulas).
// Nothing is included here: code for every instruction set sees it.
#pragma once

namespace tessera::kernels {

enum class ActivationKind : unsigned char { kSilu, kGeluTanh, kGelu, kRelu, kRelu2 };
inline constexpr int kActivationKinds = 5;

}  // namespace tessera::kernels
