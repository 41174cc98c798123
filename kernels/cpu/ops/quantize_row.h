// One row onto the int8 grid (ops/activation.h), where the pass that made it is under way.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {

// x [width], a multiple of 32, into row `row` of `out`.
template <CpuIsa isa>
void QuantizeRow(const float* x, const QuantizedRows& out, int64_t row, int64_t width) {
  const int64_t groups = width / kQuantGroup;
  Micro<isa>::kRow.quantize(x, out.q + row * width, out.scale + row * groups,
                            out.sum + row * groups * 2, static_cast<int32_t>(width));
}

// What keeps rows of `width` off the grid; empty: nothing.
[[nodiscard]] inline std::string MissingGrid(int64_t width) {
  if (width > 0 && width % kQuantGroup == 0) return "";
  return absl::StrCat("width ", width, " (a multiple of ", kQuantGroup, ")");
}

}  // namespace tessera::kernels::cpu
