// Whether a kernel that leaves codes of its rows (row_codes.h) leaves those that the rows become.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/ops/rows.h"
#include "kernels/cuda/row_codes.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::check {

// Where CodeKind::kInt8Groups has a column.
inline int Int8PlaceOf(int column) {
  constexpr int kSwapped[] = {0, 2, 1, 3};
  const int c = column % 64;
  return column - c + c / 8 % 2 * 32 + c / 4 % 2 * 16 + c / 16 * 4 + kSwapped[c % 4];
}

struct GroupCodesBuffers {
  kernels::cuda::CodeKind kind;
  DeviceBuffer<uint8_t> codes;  // [rows, width]
  DeviceBuffer<float> scales;

  GroupCodesBuffers(kernels::cuda::CodeKind k, int rows, int width)
      : kind(k),
        codes(size_t(rows) * width),
        scales(size_t{kernels::cuda::kCodeRows} * ((width + 127) / kernels::cuda::kCodeGroup)) {}
  [[nodiscard]] kernels::cuda::RowCodes Get() const { return {codes.get(), scales.get(), kind}; }
};

// "" or what is wrong with `got` beside bf16 rows `y` [rows, width] of the device; groups of
// columns of `y` that nobody wrote have all bits set.
inline std::string OtherCodes(const void* y, int rows, int width, const GroupCodesBuffers& got) {
  using namespace kernels::cuda;  // NOLINT: the names under test
  const size_t count = size_t(rows) * width;
  const GroupCodesBuffers want(got.kind, rows, width);
  CHECK_CUDA(LaunchCodeRows({.x = static_cast<const __nv_bfloat16*>(y),
                             .x_stride = width,
                             .rows = rows,
                             .width = width,
                             .out = {.codes = want.Get(), .stride = width}},
                            nullptr));
  std::vector<uint16_t> bits(count);
  CHECK_CUDA(cudaMemcpy(bits.data(), y, count * 2, cudaMemcpyDeviceToHost));
  const std::vector<uint8_t> codes = got.codes.Download(), want_codes = want.codes.Download();
  const std::vector<float> scales = got.scales.Download(), want_scales = want.scales.Download();
  std::string problem;
  if (!got.codes.CanaryIntact() || !got.scales.CanaryIntact()) problem += " canary of codes";
  bool same = true, same_scales = true;
  for (size_t i = 0; i < count; ++i) {
    const int row = static_cast<int>(i / width), group = static_cast<int>(i % width) / kCodeGroup;
    if (bits[size_t(row) * width + group * kCodeGroup] == 0xffff) continue;
    same = same && codes[i] == want_codes[i];
    const size_t scale = size_t(group) * kCodeRows + row;
    // By bits: some are not a number.
    same_scales = same_scales && std::memcmp(&scales[scale], &want_scales[scale], 4) == 0;
  }
  if (!same) problem += " other codes";
  if (!same_scales) problem += " other scales of codes";
  return problem;
}

}  // namespace tessera::check
