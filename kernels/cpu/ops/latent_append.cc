#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

template <CpuIsa isa>
void Queries(const LatentAppendOp::Params& p, const RopeCall& rope, int64_t row) {
  const LatentShape& s = p.shape;
  const int64_t width = s.rank + s.rope_dim;
  const float* from = static_cast<const float*>(p.q) + row * s.q_heads * (s.nope_dim + s.rope_dim);
  for (int64_t h = 0; h < s.q_heads; ++h, from += s.nope_dim + s.rope_dim) {
    const int64_t to = h * p.rows + row;
    std::memcpy(static_cast<float*>(p.q_nope) + to * s.nope_dim, from,
                static_cast<size_t>(s.nope_dim) * sizeof(float));
    float* rotated = static_cast<float*>(p.q_latent) + to * width + s.rank;
    Micro<isa>::kAttention.rotate(rope, from + s.nope_dim, rotated);
    p.row_of[to] = static_cast<int32_t>(row);
  }
}

template <CpuIsa isa>
void RunRow(const LatentAppendOp::Params& p, const float* norm, int64_t row, float* buffer) {
  const LatentShape& s = p.shape;
  const int64_t width = s.rank + s.rope_dim;
  const int64_t rotary = (p.rotary_rows != nullptr ? p.rotary_rows[row] : row) * (s.rope_dim / 2);
  const RopeCall rope = {.cosine = p.cosine + rotary,
                         .sine = p.sine + rotary,
                         .heads = 1,
                         .head_dim = s.rope_dim,
                         .rotary_dim = s.rope_dim,
                         .interleaved = p.style == RopeStyle::kInterleaved ? 1 : 0};
  Queries<isa>(p, rope, row);
  if (!p.page[row].valid()) return;
  const float* latent = static_cast<const float*>(p.latent) + row * width;
  Micro<isa>::kRow.rms_norm(latent, norm, buffer, s.rank, p.epsilon);
  Micro<isa>::kAttention.rotate(rope, latent + s.rank, buffer + s.rank);
  const int64_t element = s.kv.dtype == DType::kF32 ? 4 : 2;
  Micro<isa>::kLatent.store[static_cast<int>(s.kv.dtype)](
      buffer, static_cast<int32_t>(width),
      PageAddress(p.arena, p.page[row]) + p.slot[row] * width * element);
}

template <CpuIsa isa>
void Run(ExecContext& context, const LatentAppendOp::Params& p) {
  const LatentShape& s = p.shape;
  const double row_ns = 0.5 * s.q_heads * (s.nope_dim + s.rope_dim) + 2.0 * (s.rank + s.rope_dim);
  for (const LatentNorm& norm : p.norms) {
    ForShares(context, norm.row_count, row_ns * norm.row_count,
              [&](int64_t begin, int64_t end, int thread) {
                float* buffer = reinterpret_cast<float*>(context.scratch(thread));
                for (int64_t row = begin; row < end; ++row) {
                  RunRow<isa>(p, norm.weight, norm.row_begin + row, buffer);
                }
              });
  }
}

std::string Missing(const LatentAppendOp::Desc& desc) {
  if (desc.shape.rope_dim % 2 != 0) {
    return absl::StrCat("rope_dim ", desc.shape.rope_dim, " (even)");
  }
  return MissingLatent(desc.shape);
}

}  // namespace

void Register_latent_append(Registry& registry) {
  registry.Add<LatentAppendOp>("latent_append", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
