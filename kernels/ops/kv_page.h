// The bytes of one KV page: 64 tokens of one head group of one block, keys and values together.
//
//   K  [kv_heads, head_dim, 64]   transposed, so that 16 tokens are one vector
//   V  [kv_heads, 64, head_dim]
//   S  [kv_heads, 4, 2, head_dim] float32, optional: minimum and maximum of the keys of each
//   logical
//                                 page of 16 tokens, valid once the page is sealed
// A latent format has one plane instead of K and V, which is both:
//   X  [64, head_dim]
// Each plane starts at a multiple of 64 bytes and the whole is a multiple of kPageUnitBytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "config/foundation/ids.h"
#include "kernels/dtype.h"

namespace tessera::kernels {

inline constexpr int kPageTokens = 64;
inline constexpr int kLogicalPageTokens = 16;
// A PageId counts units of this many bytes from the arena's start, so that pools with other page
// sizes share one arena and a kernel needs no pool to find a page.
inline constexpr uint64_t kPageUnitBytes = 512;

struct KvFormat {
  DType dtype = DType::kF32;  // kF32, kF16, kBF16 or kF8E4M3
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  bool key_statistics = false;
  bool latent = false;  // kv_heads is 1

  bool operator==(const KvFormat&) const = default;

  [[nodiscard]] uint64_t plane_bytes() const {
    const uint64_t element = dtype == DType::kF32 ? 4 : dtype == DType::kF8E4M3 ? 1 : 2;
    return (uint64_t{kPageTokens} * kv_heads * head_dim * element + 63) / 64 * 64;
  }
  // Not of latent formats.
  [[nodiscard]] uint64_t v_offset() const { return plane_bytes(); }
  [[nodiscard]] uint64_t statistics_offset() const { return (latent ? 1 : 2) * plane_bytes(); }
  [[nodiscard]] uint64_t statistics_bytes() const {
    return key_statistics
               ? uint64_t{4} * (kPageTokens / kLogicalPageTokens) * 2 * kv_heads * head_dim
               : 0;
  }
  [[nodiscard]] uint64_t page_bytes() const {
    const uint64_t bytes = statistics_offset() + statistics_bytes();
    return (bytes + kPageUnitBytes - 1) / kPageUnitBytes * kPageUnitBytes;
  }
};

// The address of a page in the arena that starts at `arena`.
[[nodiscard]] inline std::byte* PageAddress(std::byte* arena, PageId page) {
  return arena + uint64_t{page.value} * kPageUnitBytes;
}

}  // namespace tessera::kernels
