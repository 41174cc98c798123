// Cosine and sine of position * frequency, the product rounded to float32 as the reference
// implementations do, times `scale`: once a step, for all blocks that rotate.
#pragma once

#include <cstdint>
#include <string>

namespace tessera::kernels {

struct RotaryAnglesOp {
  static constexpr const char* kName = "rotary_angles";
  struct Desc {
    int64_t pairs = 0;
  };
  struct Params {
    const int32_t* positions = nullptr;  // [rows]
    const float* frequencies = nullptr;  // [pairs]
    float* cosine = nullptr;             // [rows, pairs]
    float* sine = nullptr;
    int32_t rows = 0;
    int32_t pairs = 0;
    float scale = 1.0f;
  };
};
[[nodiscard]] std::string Describe(const RotaryAnglesOp::Desc& desc);

}  // namespace tessera::kernels
