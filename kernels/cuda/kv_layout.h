// The bytes of a KV page on a CUDA device (host and device code).
//
// A page has one record a KV head: K [64, head_dim], then V [64, head_dim], both token-major, in
// panels. A panel is a run of columns of 128, 64, 32 or 16 bytes, the widest that still fits what
// is left of the row, and holds all 64 tokens; inside it, 16-byte chunks are swizzled as the copy
// engine and wgmma know them, so that a plain bulk copy lands what the tensor cores read. The
// page's size equals KvFormat::page_bytes().
#pragma once

#include <cstdint>

#include "kernels/ops/kv_page.h"

#ifdef __CUDACC__
#define TESSERA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define TESSERA_HOST_DEVICE inline
#endif

namespace tessera::kernels::cuda {

// Bytes of K (or V) of one head of one page.
TESSERA_HOST_DEVICE constexpr uint32_t PlaneBytes(uint32_t head_dim, uint32_t element_bytes) {
  return 64u * head_dim * element_bytes;
}
// Bytes from a page's start to head `head`'s K; its V follows PlaneBytes later.
TESSERA_HOST_DEVICE constexpr uint64_t HeadOffset(uint32_t head, uint32_t head_dim,
                                                  uint32_t element_bytes) {
  return uint64_t{2} * head * PlaneBytes(head_dim, element_bytes);
}

// Width in bytes of the panel that begins `left` bytes before the row's end.
TESSERA_HOST_DEVICE constexpr uint32_t PanelWidth(uint32_t left) {
  return left >= 128 ? 128 : left >= 64 ? 64 : left >= 32 ? 32 : 16;
}

// What the numbers of a token's 16-byte chunks are swizzled with in a panel of `width` bytes.
TESSERA_HOST_DEVICE constexpr uint32_t PanelSwizzle(uint32_t token, uint32_t width) {
  return width == 128 ? token & 7 : width == 64 ? token / 2 & 3 : width == 32 ? token / 4 & 1 : 0;
}

// Offset of byte `column` of token `token` in a plane whose rows have `row_bytes` bytes (a multiple
// of 16).
TESSERA_HOST_DEVICE constexpr uint32_t PlaneOffset(uint32_t token, uint32_t column,
                                                   uint32_t row_bytes) {
  uint32_t panel = column / 128 * 128;  // first column of the panel
  uint32_t width = PanelWidth(row_bytes - panel);
  while (column >= panel + width) {
    panel += width;
    width = PanelWidth(row_bytes - panel);
  }
  const uint32_t chunk = (column - panel) / 16 ^ PanelSwizzle(token, width);
  return panel * 64 + token * width + chunk * 16 + column % 16;
}

}  // namespace tessera::kernels::cuda
