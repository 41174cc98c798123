// Cuts the attention plan into units (some heads, some queries of a row) that threads take as they
// come.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

struct LatentUnits {
  int32_t heads_each;
  int32_t head_parts;
  int32_t queries_each;
  int32_t query_parts;
  [[nodiscard]] int64_t count() const { return int64_t{head_parts} * query_parts; }
};

LatentUnits LatentUnitsOf(const LatentAttentionOp::Params& p, const AttentionRow& row) {
  LatentUnits u;
  u.head_parts = (p.shape.q_heads + kMaxItems - 1) / kMaxItems;
  u.heads_each = (p.shape.q_heads + u.head_parts - 1) / u.head_parts;
  u.head_parts = (p.shape.q_heads + u.heads_each - 1) / u.heads_each;
  u.queries_each = kMaxItems / u.heads_each;
  u.query_parts = (row.q_rows + u.queries_each - 1) / u.queries_each;
  return u;
}

LatentCall CallOf(const LatentAttentionOp::Params& p, const AttentionRow& row, const LatentUnits& u,
                  int64_t unit) {
  const LatentShape& s = p.shape;
  const int32_t width = s.rank + s.rope_dim;
  const int32_t head = static_cast<int32_t>(unit % u.head_parts) * u.heads_each;
  // Later queries read more: they go first.
  const int32_t first =
      (u.query_parts - 1 - static_cast<int32_t>(unit / u.head_parts)) * u.queries_each;
  const int64_t at = int64_t{head} * p.rows + row.q_begin + first;
  LatentCall call = {};
  call.arena = p.arena;
  call.q = static_cast<const float*>(p.q) + at * width;
  call.out = static_cast<float*>(p.out) + at * s.rank;
  call.q_head_stride = int64_t{p.rows} * width;
  call.out_head_stride = int64_t{p.rows} * s.rank;
  call.queries = std::min(u.queries_each, row.q_rows - first);
  call.heads = std::min(u.heads_each, s.q_heads - head);
  call.position = row.position + first;
  call.width = width;
  call.rank = s.rank;
  call.table =
      reinterpret_cast<const uint32_t*>(row.page_table + uint64_t{p.table} * row.table_stride);
  call.scale = p.scale;
  return call;
}

template <CpuIsa isa>
void Run(ExecContext& context, const LatentAttentionOp::Params& p) {
  int64_t units = 0;
  double ns = 0;
  for (const AttentionRow& row : p.plan.rows) {
    units += LatentUnitsOf(p, row).count();
    ns += (row.position + 0.5 * row.q_rows) * row.q_rows * p.shape.q_heads * p.shape.rank / 20;
  }
  ForEachTaken(context, units, ns, [&](auto next, int thread) {
    int64_t before = 0;
    size_t at = 0;
    for (int64_t unit = next(); unit < units; unit = next()) {
      LatentUnits u = LatentUnitsOf(p, p.plan.rows[at]);
      while (unit - before >= u.count()) {
        before += u.count();
        u = LatentUnitsOf(p, p.plan.rows[++at]);
      }
      LatentCall call = CallOf(p, p.plan.rows[at], u, unit - before);
      call.scratch = reinterpret_cast<float*>(context.scratch(thread));
      Micro<isa>::kLatent.attend[static_cast<int>(p.shape.kv.dtype)](call);
    }
  });
}

std::string Missing(const LatentAttentionOp::Desc& desc) { return MissingLatent(desc.shape); }

}  // namespace

std::string MissingLatent(const LatentShape& shape) {
  if (!shape.kv.latent) return "keys and values apart";
  KvFormat plane = shape.kv;
  plane.latent = false;
  const std::string kv = MissingKv(plane);
  if (!kv.empty()) return kv;
  if (shape.kv.key_statistics) return "key statistics";
  if (shape.q_heads < 1 || shape.nope_dim < 1 || shape.rope_dim < 0 || shape.rank < 1 ||
      shape.kv.kv_heads != 1 ||
      shape.kv.head_dim != static_cast<uint32_t>(shape.rank + shape.rope_dim)) {
    return "a head_dim that is not rank + rope_dim, or an empty shape";
  }
  return "";
}

void Register_latent_attention(Registry& registry) {
  registry.Add<LatentAttentionOp>("latent_attention", Missing, Run<CpuIsa::kAvx512>,
                                  Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
