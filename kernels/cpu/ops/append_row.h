// A token's row of queries, keys and values on its way to attention (ops/rope_append.h), for the
// drivers that rotate and append: all heads of a launch first, or those of a unit as it comes.
#pragma once

#include "config/foundation/fetching.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {

class AppendRow {
 public:
  AppendRow(const AttentionKernels& micro, const RopeAppendOp::Params& p, int64_t row)
      : micro_(micro),
        p_(p),
        row_(row),
        element_(p.kv.dtype == DType::kF32 ? 4 : 2),
        plane_(int64_t{p.kv.head_dim} * kPageTokens * element_) {
    const int64_t angles = (p.rotary_rows != nullptr ? p.rotary_rows[row] : row);
    call_ = {.cosine = p.cosine + angles * (p.rotary_dim / 2),
             .sine = p.sine + angles * (p.rotary_dim / 2),
             .heads = 1,
             .head_dim = static_cast<int32_t>(p.kv.head_dim),
             .rotary_dim = p.rotary_dim,
             .interleaved = p.style == RopeStyle::kInterleaved ? 1 : 0};
  }

  // A token's keys lie a line apart each, in a page that was last read long ago: all lines of some
  // KV heads are asked for before the first is waited for. Into the second-level cache: so many on
  // their way to the first one, to be written, kept what attention reads from coming.
  TESSERA_FETCHING void AskForKeys(int64_t first, int64_t heads) const {
    if (!p_.page[row_].valid()) return;
    const std::byte* key = Page() + first * plane_ + p_.slot[row_] * element_;
    const int64_t dims = heads * p_.kv.head_dim;
    for (int64_t d = 0; d < dims; ++d, key += kPageTokens * element_) __builtin_prefetch(key, 0, 2);
  }

  // Query heads, in place.
  void RotateQueries(int64_t first, int32_t heads) {
    call_.heads = heads;
    float* q = static_cast<float*>(p_.q) + row_ * p_.q_stride + first * p_.kv.head_dim;
    micro_.rotate(call_, q, q);
  }

  // Key and value of a KV head into the row's page, where it has one. `rotated`: [head_dim].
  void Store(int64_t head, float* rotated) {
    if (!p_.page[row_].valid()) return;
    call_.heads = 1;
    const int64_t at = row_ * p_.kv_stride + head * p_.kv.head_dim;
    micro_.rotate(call_, static_cast<const float*>(p_.k) + at, rotated);
    std::byte* keys = Page() + head * plane_;
    micro_.store_kv[static_cast<int>(p_.kv.dtype)](
        rotated, static_cast<const float*>(p_.v) + at, keys,
        keys + static_cast<int64_t>(p_.kv.v_offset()), 1, call_.head_dim, p_.slot[row_]);
  }

 private:
  [[nodiscard]] std::byte* Page() const { return PageAddress(p_.arena, p_.page[row_]); }

  const AttentionKernels& micro_;
  const RopeAppendOp::Params& p_;
  const int64_t row_;
  const int64_t element_;
  const int64_t plane_;  // bytes of a head's keys
  RopeCall call_;
};

// All rows of a launch.
void AppendRows(ExecContext& context, const RopeAppendOp::Params& p, const AttentionKernels& micro);
// What a backend of these kernels lacks for it; empty: nothing.
[[nodiscard]] std::string MissingAppend(const RopeAppendOp::Desc& desc);

}  // namespace tessera::kernels::cpu
