// A paged cache on the host for the decode checks: pages of several tables, NaN wherever nothing
// was written, and attention over it in float64.
#pragma once

#include <cuda_fp8.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/kv_layout.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::check {

using kernels::DType;
using kernels::kPageTokens;
using kernels::kPageUnitBytes;
using kernels::PageEntry;
using kernels::cuda::DecodeRow;

struct CacheFormat {
  int kv_heads = 1;
  int head_dim = 128;
  DType type = DType::kBF16;

  [[nodiscard]] uint32_t element_bytes() const { return type == DType::kBF16 ? 2 : 1; }
  [[nodiscard]] uint64_t page_bytes() const {
    const uint64_t bytes = kernels::cuda::HeadOffset(kv_heads, head_dim, element_bytes());
    return (bytes + kPageUnitBytes - 1) / kPageUnitBytes * kPageUnitBytes;
  }
};

inline uint16_t Bf16Bits(float value) {
  const __nv_bfloat16 rounded = __float2bfloat16(value);
  uint16_t bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return bits;
}
inline uint8_t E4m3Bits(float value) {
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}
inline float E4m3Value(uint8_t bits) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(bits, __NV_E4M3)));
}

enum class Plane { kKey, kValue };

// The arena on the host. Every byte starts as 0xff, a NaN in both formats.
class HostCache {
 public:
  HostCache(const CacheFormat& format, uint32_t pages)
      : format_(format), bytes_(format.page_bytes() * pages, 0xff), free_(pages) {
    std::iota(free_.begin(), free_.end(), 0u);
  }
  // A page at random.
  PageId Take(Rng& rng) {
    const uint32_t at = rng.Below(static_cast<uint32_t>(free_.size()));
    const uint32_t page = free_[at];
    free_[at] = free_.back();
    free_.pop_back();
    return PageId(static_cast<uint32_t>(page * format_.page_bytes() / kPageUnitBytes));
  }
  uint8_t* At(PageId page, int head, Plane plane, int token, int dim) {
    const uint32_t width = format_.element_bytes();
    const uint64_t plane_offset =
        kernels::cuda::HeadOffset(head, format_.head_dim, width) +
        (plane == Plane::kValue ? kernels::cuda::PlaneBytes(format_.head_dim, width) : 0);
    return bytes_.data() + uint64_t{page.value} * kPageUnitBytes + plane_offset +
           kernels::cuda::PlaneOffset(token, dim * width, format_.head_dim * width);
  }
  void Set(PageId page, int head, Plane plane, int token, int dim, float value) {
    uint8_t* at = At(page, head, plane, token, dim);
    if (format_.type == DType::kBF16) {
      const uint16_t bits = Bf16Bits(value);
      std::memcpy(at, &bits, 2);
    } else {
      *at = E4m3Bits(value);
    }
  }
  float Get(PageId page, int head, Plane plane, int token, int dim) {
    const uint8_t* at = At(page, head, plane, token, dim);
    if (format_.type != DType::kBF16) return E4m3Value(*at);
    uint16_t bits;
    std::memcpy(&bits, at, 2);
    return BitsToFloat(bits);
  }
  [[nodiscard]] const std::vector<uint8_t>& bytes() const { return bytes_; }
  [[nodiscard]] const CacheFormat& format() const { return format_; }

 private:
  CacheFormat format_;
  std::vector<uint8_t> bytes_;
  std::vector<uint32_t> free_;
};

// What one query head reads of one page: `heads` is the entry's mask, all ones for a dense row.
struct VisiblePage {
  PageId page;
  int64_t logical = 0;
  uint32_t heads = ~0u;
};

struct ReferenceQuery {
  const uint16_t* q;  // bf16 [head_dim]
  int kv_head;
  int head_in_group;
  int64_t position;
  int64_t window;
  double scale;
};

// Attention of one query head in float64.
inline std::vector<double> Reference(HostCache& cache, std::span<const VisiblePage> pages,
                                     const ReferenceQuery& query) {
  const int dims = cache.format().head_dim;
  std::vector<double> scores;
  std::vector<std::pair<PageId, int>> tokens;
  for (const VisiblePage& page : pages) {
    if (!page.page.valid() || (page.heads >> (query.head_in_group & 31) & 1) == 0) continue;
    for (int t = 0; t < kPageTokens; ++t) {
      const int64_t at = page.logical * kPageTokens + t;
      if (at > query.position) break;
      if (query.window != 0 && at <= query.position - query.window) continue;
      double score = 0;
      for (int d = 0; d < dims; ++d) {
        score += static_cast<double>(BitsToFloat(query.q[d])) *
                 cache.Get(page.page, query.kv_head, Plane::kKey, t, d);
      }
      scores.push_back(score * query.scale);
      tokens.emplace_back(page.page, t);
    }
  }
  std::vector<double> out(dims, 0.0);
  if (scores.empty()) return out;
  const double top = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const double weight = std::exp(scores[i] - top);
    sum += weight;
    for (int d = 0; d < dims; ++d) {
      out[d] +=
          weight * cache.Get(tokens[i].first, query.kv_head, Plane::kValue, tokens[i].second, d);
    }
  }
  for (double& value : out) value /= sum;
  return out;
}

}  // namespace tessera::check
