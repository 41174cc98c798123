// logits = logits * scale, then softcap * tanh(logits / softcap) where there is one, in place.
#pragma once

#include <cstdint>
#include <string>

namespace tessera::kernels {

struct ScaleLogitsOp {
  static constexpr const char* kName = "scale_logits";
  struct Desc {
    int64_t vocab = 0;
  };
  struct Params {
    float* logits = nullptr;  // [rows, stride]
    int64_t stride = 0;
    int32_t rows = 0;
    int32_t vocab = 0;
    float scale = 1.0f;
    float softcap = 0;  // > 0; 0: none
  };
};
[[nodiscard]] std::string Describe(const ScaleLogitsOp::Desc& desc);

}  // namespace tessera::kernels
