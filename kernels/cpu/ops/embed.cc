#include "absl/strings/str_cat.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

template <DType dtype>
void Run(ExecContext& context, const EmbedOp::Params& p) {
  for (const EmbedTask& task : p.tasks) {
    const double ns = 1.5 * p.width * task.row_count;
    ForShares(context, task.row_count, ns, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = task.row_begin + i;
        const int64_t row = p.rows != nullptr ? p.rows[at] : at;
        float* y = p.y + row * p.width;
        const bool adds = p.mode == EmbedMode::kAdd;
        float* to = adds ? reinterpret_cast<float*>(context.scratch(thread)) : y;
        ReadRow(dtype, static_cast<uint64_t>(p.width), task.table,
                uint64_t{p.tokens[row]} + p.offset, p.scale, to);
        for (int32_t d = 0; adds && d < p.width; ++d) y[d] += to[d];
      }
    });
  }
}

template <DType dtype>
std::string Missing(const EmbedOp::Desc& desc) {
  if (desc.table != dtype) return absl::StrCat("table ", InfoOf(desc.table).name);
  if (desc.width <= 0 || TileBytes(dtype, static_cast<uint64_t>(desc.width)) == 0) {
    return absl::StrCat("width ", desc.width, " (a multiple of ", InfoOf(dtype).block_elements,
                        ")");
  }
  return "";
}

template <DType dtype>
void AddEmbed(Registry& registry, const char* name) {
  registry.Add<EmbedOp>(name, Missing<dtype>, Run<dtype>, Run<dtype>);
}

}  // namespace

void Register_embed(Registry& registry) {
  AddEmbed<DType::kF32>(registry, "embed.f32");
  AddEmbed<DType::kF16>(registry, "embed.f16");
  AddEmbed<DType::kBF16>(registry, "embed.bf16");
  AddEmbed<DType::kQ8_0>(registry, "embed.q8_0");
  AddEmbed<DType::kQ4_0>(registry, "embed.q4_0");
  AddEmbed<DType::kQ4_1>(registry, "embed.q4_1");
  AddEmbed<DType::kF8Channel>(registry, "embed.f8_channel");
  AddEmbed<DType::kF8Block128>(registry, "embed.f8_block128");
  AddEmbed<DType::kI8Channel>(registry, "embed.i8_channel");
  AddEmbed<DType::kI4G128>(registry, "embed.i4_g128");
  AddEmbed<DType::kI4G64>(registry, "embed.i4_g64");
  AddEmbed<DType::kI4G128Zero>(registry, "embed.i4_g128_zero");
  AddEmbed<DType::kI4G64Zero>(registry, "embed.i4_g64_zero");
}

}  // namespace tessera::kernels::cpu
