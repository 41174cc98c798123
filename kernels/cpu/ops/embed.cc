#include <string>
#include <utility>

#include "absl/strings/ascii.h"
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
void AddEmbed(Registry& registry) {
  static const std::string name = absl::StrCat("embed.", absl::AsciiStrToLower(InfoOf(dtype).name));
  registry.Add<EmbedOp>(name.c_str(), Missing<dtype>, Run<dtype>, Run<dtype>);
}

// Of every weight type.
template <size_t... kIndex>
void AddEach(Registry& registry, std::index_sequence<kIndex...>) {
  (AddEmbed<static_cast<DType>(kIndex)>(registry), ...);
}

}  // namespace

void Register_embed(Registry& registry) {
  AddEach(registry, std::make_index_sequence<kWeightTypeCount>());
}

}  // namespace tessera::kernels::cpu
