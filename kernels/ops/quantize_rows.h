// Float rows to the int8 activation grid (activation.h).
#pragma once

#include <cstdint>
#include <string>

#include "kernels/ops/activation.h"

namespace tessera::kernels {

struct QuantizeRowsOp {
  static constexpr const char* kName = "quantize_rows";
  struct Desc {
    int64_t width = 0;  // multiple of 32
  };
  struct Params {
    const float* x = nullptr;  // [rows, width]
    QuantizedRows out;
    int32_t rows = 0;
    int32_t width = 0;
  };
};
[[nodiscard]] std::string Describe(const QuantizeRowsOp::Desc& desc);

}  // namespace tessera::kernels
