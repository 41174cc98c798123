// Shares the products of a launch over threads: units of some tiles by some rows, taken as they
// come.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "kernels/cpu/cpu_context.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cpu {
namespace {

// A unit is at least this much of the weight, so that streaming is not cut into crumbs.
constexpr int64_t kUnitBytes = 24 << 10;
constexpr int64_t kTileStep = 8;  // register blocks of every instruction set divide it
// On tile registers a unit's rows are laid out anew, for all of its tiles.
constexpr int64_t kTilesForRows = 32;

// How the products of one task are made.
struct LinearWay {
  void (*run)(const LinearCall&);
  int64_t row_block;
  int64_t tiles_each;  // of a unit, at least
};

struct LinearUnits {
  int64_t tiles_each;
  int64_t tiles;
  int64_t columns;  // units across the tiles
  int64_t row_blocks;
  int64_t count;
};

// A unit has at most the way's rows; all have about as many.
LinearUnits LinearUnitsOf(const LinearTask& task, int64_t tile_bytes, const LinearWay& way) {
  LinearUnits u;
  const int64_t wanted = std::max<int64_t>(way.tiles_each, kUnitBytes / tile_bytes);
  u.tiles_each = (wanted + kTileStep - 1) / kTileStep * kTileStep;
  u.row_blocks = (std::max(task.row_count, 0) + way.row_block - 1) / way.row_block;
  // Narrow weights still split, down to two tiles.
  u.tiles = (task.out + kTileRows - 1) / kTileRows;
  while (u.tiles_each > 2 && u.tiles * std::max<int64_t>(u.row_blocks, 1) < u.tiles_each * 4) {
    u.tiles_each /= 2;
  }
  u.columns = (u.tiles + u.tiles_each - 1) / u.tiles_each;
  u.count = u.columns * u.row_blocks;
  return u;
}

template <DType dtype>
LinearCall CallOf(const LinearOp::Params& p, const LinearTask& task) {
  LinearCall call = {};
  call.weight = task.weight;
  call.x = static_cast<const float*>(p.x.x);
  call.q = p.x.q8.q;
  call.x_scale = p.x.q8.scale;
  call.x_sum = p.x.q8.sum;
  call.bias = task.bias;
  call.addend = static_cast<const float*>(task.addend);
  call.y = static_cast<float*>(task.y);
  call.y_rows = p.y_rows;
  call.y_stride = task.y_stride;
  call.addend_stride = task.addend_stride;
  call.in = p.in;
  call.out = task.out;
  call.accumulate = p.epilogue == Epilogue::kResidual ? 1 : 0;
  call.tile_bytes = static_cast<int64_t>(TileBytes(dtype, static_cast<uint64_t>(p.in)));
  if constexpr (HasPlanes(dtype)) {
    const PlaneTile place = PlaneTileOf(dtype, static_cast<uint64_t>(p.in));
    call.tile_scales = static_cast<int64_t>(place.scales);
    call.tile_zeros = static_cast<int64_t>(place.zeros);
  }
  return call;
}

// What was measured to choose by; null where there is one way.
template <CpuIsa isa>
const TileCosts* CostsOf(const ExecContext& context) {
  if constexpr (isa != CpuIsa::kAmx) return nullptr;
  const auto* measured = dynamic_cast<const CpuContext*>(&context);
  return measured == nullptr ? nullptr : &measured->tiles();
}

template <CpuIsa isa, DType dtype>
LinearWay WayOf(int64_t in, int32_t rows, const TileCosts* costs) {
  if constexpr (isa == CpuIsa::kAmx && TakesTiles(dtype)) {
    if (costs != nullptr && costs->Tiles(dtype, rows)) {
      return {kAmxLinear.run[static_cast<int>(dtype)], TileRowBlock(in), kTilesForRows};
    }
  }
  return {Micro<isa>::template Linear<FamilyOf(dtype)>().run[static_cast<int>(dtype)], kRowBlock,
          1};
}

// Of a thread.
template <CpuIsa isa, DType dtype>
size_t ScratchBytesOf(int64_t in) {
  if constexpr (!IsBlockFormat(dtype)) return 0;
  constexpr bool kTiles = isa == CpuIsa::kAmx && TakesTiles(dtype);
  const int64_t tiles = kTiles ? TileScratchBytes(in) : 0;
  return static_cast<size_t>(std::max(LinearScratchBytes(in), tiles));
}

template <CpuIsa isa, DType dtype>
void Run(ExecContext& context, const LinearOp::Params& p) {
  const int64_t tile_bytes = static_cast<int64_t>(TileBytes(dtype, static_cast<uint64_t>(p.in)));
  const TileCosts* const costs = CostsOf<isa>(context);
  int64_t units = 0;
  double ns = 0;
  for (const LinearTask& task : p.tasks) {
    const LinearUnits u =
        LinearUnitsOf(task, tile_bytes, WayOf<isa, dtype>(p.in, task.row_count, costs));
    units += u.count;
    if (u.count == 0) continue;
    const double bytes = static_cast<double>(u.tiles * tile_bytes);
    const double products = static_cast<double>(u.tiles) * kTileRows * p.in * task.row_count;
    ns += bytes / 25 + products / (IsBlockFormat(dtype) ? 200 : 50);
  }
  if (units == 0) return;
  const size_t scratch = ScratchBytesOf<isa, dtype>(p.in);
  TESSERA_CHECK(scratch <= context.scratch_bytes());
  // Weights that lie one behind the other are read by one thread: taken in turns they come 1.2
  // to 1.4 times as slowly from memory.
  ForEachNear(context, units, ns, [&](auto next, int thread) {
    // Units of the tasks before `at`; at first so that the first unit begins anew.
    int64_t before = units;
    size_t at = 0;
    LinearWay way = {};
    LinearUnits u = {};
    LinearCall last = {};
    void (*ran)(const LinearCall&) = nullptr;  // what made `last`
    for (int64_t unit = next(); unit < units; unit = next()) {
      if (unit < before) {
        before = 0;
        at = 0;
        way = WayOf<isa, dtype>(p.in, p.tasks[0].row_count, costs);
        u = LinearUnitsOf(p.tasks[0], tile_bytes, way);
      }
      while (unit - before >= u.count) {
        before += u.count;
        way = WayOf<isa, dtype>(p.in, p.tasks[++at].row_count, costs);
        u = LinearUnitsOf(p.tasks[at], tile_bytes, way);
      }
      const LinearTask& task = p.tasks[at];
      const int64_t tile = (unit - before) % u.columns * u.tiles_each;
      const int64_t block = (unit - before) / u.columns;
      LinearCall call = CallOf<dtype>(p, task);
      call.scratch = context.scratch(thread);
      call.tile_begin = static_cast<int32_t>(tile);
      call.tile_end = static_cast<int32_t>(std::min(u.tiles, tile + u.tiles_each));
      const int64_t rows = task.row_count;
      call.row_begin = task.row_begin + static_cast<int32_t>(rows * block / u.row_blocks);
      call.row_end = task.row_begin + static_cast<int32_t>(rows * (block + 1) / u.row_blocks);
      const bool same = call.row_begin == last.row_begin && call.row_end == last.row_end;
      call.rows_kept = same && way.run == ran ? 1 : 0;
      way.run(call);
      last = call;
      ran = way.run;
    }
  });
}

template <DType dtype>
std::string Missing(const LinearOp::Desc& desc) {
  if (desc.weight != dtype) return absl::StrCat("weight ", InfoOf(desc.weight).name);
  if (desc.normed) return "a norm of its own";
  if (desc.gated) return "gating";
  if (desc.in <= 0 || desc.out <= 0) return "an empty shape";
  if (TileBytes(dtype, static_cast<uint64_t>(desc.in)) == 0) {
    return absl::StrCat("in ", desc.in, " (a multiple of ", InfoOf(dtype).block_elements, ")");
  }
  return "";
}

template <DType dtype>
void AddLinear(Registry& registry) {
  static const std::string name =
      absl::StrCat("linear.", absl::AsciiStrToLower(InfoOf(dtype).name));
  registry.Add<LinearOp>(name.c_str(), Missing<dtype>, Run<CpuIsa::kAvx512, dtype>,
                         Run<CpuIsa::kAvx2, dtype>,
                         TakesTiles(dtype) ? Run<CpuIsa::kAmx, dtype> : nullptr);
}

// Of every weight type.
template <size_t... kIndex>
void AddEach(Registry& registry, std::index_sequence<kIndex...>) {
  (AddLinear<static_cast<DType>(kIndex)>(registry), ...);
}

}  // namespace

void Register_linear(Registry& registry) {
  AddEach(registry, std::make_index_sequence<kWeightTypeCount>());
}

}  // namespace tessera::kernels::cpu
