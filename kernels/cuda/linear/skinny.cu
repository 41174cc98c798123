#include <cuda.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <string>

#include "kernels/cuda/linear/skinny.h"
#include "kernels/cuda/linear/skinny_plan.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int64_t kMaxIn = 65536;
constexpr int64_t kMaxOut = 524288;
// Blocks take at least this many units, so that small products have few pieces to add.
constexpr int kMinBlockUnits = 2;

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

EncodeTiled FindEncodeTiled() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                       cudaEnableDefault, &result) != cudaSuccess) {
    return nullptr;
  }
  return result == cudaDriverEntryPointSuccess ? reinterpret_cast<EncodeTiled>(function) : nullptr;
}

// A map of bytes [rows, row_bytes], loaded in boxes of `box_rows` by `box_bytes`.
bool EncodeBoxes(CUtensorMap* map, const void* base, uint64_t rows, uint64_t row_bytes,
                 uint32_t box_rows, uint32_t box_bytes, CUtensorMapSwizzle swizzle) {
  static const EncodeTiled encode = FindEncodeTiled();
  if (encode == nullptr) return false;
  const cuuint64_t sizes[2] = {row_bytes, rows};
  const cuuint64_t strides[1] = {row_bytes};
  const cuuint32_t box[2] = {box_bytes, box_rows};
  const cuuint32_t steps[2] = {1, 1};
  return encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(base), sizes, strides, box,
                steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
// The same in boxes of 128 bytes with the 128-byte swizzle.
bool EncodeRows(CUtensorMap* map, const void* base, uint64_t rows, uint64_t row_bytes,
                uint32_t box_rows) {
  return EncodeBoxes(map, base, rows, row_bytes, box_rows, 128, CU_TENSOR_MAP_SWIZZLE_128B);
}

bool IsInt4(DType dtype) { return ScaleGroup(dtype) != 0 && dtype != DType::kF8Block128; }

bool IsGated(SkinnyEpilogue epilogue) {
  return epilogue == SkinnyEpilogue::kGatedSilu || epilogue == SkinnyEpilogue::kGatedGeluTanh;
}

// Of the current device; 0 if it cannot be asked.
int DeviceAttribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  return cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess ? value : 0;
}
int Multiprocessors() {
  return std::min(DeviceAttribute(cudaDevAttrMultiProcessorCount), kSkinnyMaxMultiprocessors);
}

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

bool IsCoded(const SkinnyArgs& args) { return args.x_codes.codes != nullptr; }

bool CodesHold(const SkinnyArgs& args) {
  const RowCodes& codes = args.x_codes;
  if (args.x != nullptr || codes.scales == nullptr || !IsAligned(codes.codes) ||
      args.method != SkinnyMethod::kByRows) {
    return false;
  }
  return codes.kind == CodeKind::kE4m3Rows
             ? args.dtype == DType::kF8Channel
             : IsAligned(codes.scales) && SkinnyKeepsCodes(args) == codes.kind;
}

bool ArgumentsHold(const SkinnyArgs& args) {
  if (args.task_count < 1 || args.task_count > kSkinnyMaxTasks || args.workspace == nullptr) {
    return false;
  }
  const bool coded = IsCoded(args);
  if (coded && !CodesHold(args)) return false;
  if (args.x == nullptr && !coded &&
      !(args.residual != nullptr && args.norm_weight != nullptr && IsAligned(args.residual) &&
        IsAligned(args.norm_weight) && args.method == SkinnyMethod::kByRows &&
        SkinnyFusesNorm(args.rows, args.in))) {
    return false;
  }
  if (!IsAligned(args.x)) return false;
  return std::all_of(args.tasks, args.tasks + args.task_count, [&](const SkinnyTask& task) {
    return MissingSkinny(args.dtype, args.in, task.out, args.rows).empty() &&
           task.weight != nullptr && IsAligned(task.weight) && IsAligned(task.up) &&
           task.y != nullptr && IsGated(args.epilogue) == (task.up != nullptr);
  });
}

// The task's part of the plan; false where a map cannot be made.
bool PlanTask(const SkinnyArgs& args, const SkinnyTask& task, uint32_t box_rows, SkinnyPlanTask* to,
              CUtensorMap (&maps)[2]) {
  const bool gated = IsGated(args.epilogue);
  const WeightPlanes planes = PlanesOf(args.dtype, task.out, args.in);
  const std::byte* weights[2] = {task.weight, task.up};
  for (int part = 0; part < (gated ? 2 : 1); ++part) {
    to->weight[part] = weights[part];
    if (IsInt4(args.dtype)) continue;
    to->scales[part] = reinterpret_cast<const float*>(weights[part] + planes.scales_offset);
    const uint64_t element_bytes = args.dtype == DType::kBF16 ? 2 : 1;
    if (!EncodeRows(&maps[part], weights[part], task.out, args.in * element_bytes, box_rows)) {
      return false;
    }
  }
  to->bias[0] = task.bias;
  to->bias[1] = task.up_bias;
  to->addend[0] = task.addend;
  to->addend[1] = task.up_addend;
  to->addend_stride = task.addend_stride;
  to->y = task.y;
  to->y_stride = task.y_stride;
  to->out = task.out;
  return true;
}

cudaError_t LaunchPlan(const SkinnyPlan& plan, DType dtype, int columns, int blocks,
                       cudaStream_t stream) {
  switch (dtype) {
    case DType::kBF16:
      return LaunchSkinnyBf16(plan, columns, blocks, stream);
    case DType::kF8Channel:
    case DType::kF8Block128:
      return LaunchSkinnyF8(plan, dtype, columns, blocks, stream);
    case DType::kI8Channel:
      return LaunchSkinnyI8(plan, columns, blocks, stream);
    default:
      return LaunchSkinnyI4(plan, dtype, columns, blocks, stream);
  }
}

// Pieces of tiles of `tile_units` that so many blocks have: one more for each tile, but for tiles
// that end where a block does.
int PiecesOf(int tiles, int tile_units, int blocks) {
  const int units = tiles * tile_units / blocks, longer = tiles * tile_units % blocks;
  // Every so manyth block, counted from the first, or of the shorter ones from the last.
  const auto every = [&](int block_units) {
    return tile_units / std::gcd(tile_units, block_units);
  };
  const int together = longer / every(units + 1) + (blocks - longer - 1) / every(units) + 1;
  return blocks + tiles - together;
}

// Divides the units of `tiles`; returns the number of blocks. With `spare`, a few multiprocessors
// may have none, if that leaves fewer pieces to be exchanged.
int DivideUnits(int tiles, bool spare, SkinnyPlan* plan) {
  const int units = tiles * plan->tile_units;
  const int most = std::clamp(units / kMinBlockUnits, 1, std::max(1, Multiprocessors()));
  int best = most;
  for (int blocks = most - 1; spare && blocks >= most - most / 32; --blocks) {
    if (PiecesOf(tiles, plan->tile_units, blocks) < PiecesOf(tiles, plan->tile_units, best)) {
      best = blocks;
    }
  }
  plan->block_units = units / best;
  plan->extra_units = units % best;
  return best;
}

// The same of whole tiles, for few rows.
int DivideTiles(int tiles, SkinnyPlan* plan) {
  constexpr int kMostOfTeam = 8;
  const int blocks = std::clamp(tiles, 1, std::max(1, Multiprocessors()));
  plan->block_units = tiles / blocks;
  plan->extra_units = tiles % blocks;
  const int parts = plan->gated != 0 ? 2 : 1;
  const int most = (plan->block_units + (plan->extra_units > 0 ? 1 : 0)) * parts;
  const int passes = (most + 2 * kMostOfTeam - 1) / (2 * kMostOfTeam);
  const int tiles_of_pass = (most + passes - 1) / passes;
  plan->few_tiles = (tiles_of_pass + parts - 1) / parts * parts;
  plan->few_teams = plan->few_tiles <= kMostOfTeam ? 1 : 2;
  return blocks;
}

// Words of four outputs are aligned, and nothing comes from or goes to other rows.
bool HasAlignedWords(const SkinnyArgs& args) {
  const int word_bytes = 4 * OutputBytes(args.epilogue);
  return args.y_rows == nullptr &&
         std::all_of(args.tasks, args.tasks + args.task_count, [&](const SkinnyTask& t) {
           return t.addend == nullptr && t.up_addend == nullptr && t.out % 4 == 0 &&
                  t.y_stride % 4 == 0 && reinterpret_cast<uintptr_t>(t.y) % word_bytes == 0;
         });
}
bool HasBias(const SkinnyArgs& args) {
  return std::any_of(args.tasks, args.tasks + args.task_count,
                     [](const SkinnyTask& t) { return t.bias != nullptr || t.up_bias != nullptr; });
}

int64_t TilesOf(const SkinnyArgs& args, int tile_rows) {
  return std::accumulate(args.tasks, args.tasks + args.task_count, int64_t{0},
                         [&](int64_t sum, const SkinnyTask& task) {
                           return sum + (task.out + tile_rows - 1) / tile_rows;
                         });
}

// WholeShape::kN of a launch whose rows of weights stay in one place, 0 where they do not: nearly
// all multiprocessors are to have some.
int WholeChannels(const SkinnyArgs& args) {
  const bool bf16 = args.dtype == DType::kBF16, int4 = IsInt4(args.dtype);
  const bool gated = IsGated(args.epilogue);
  if (args.method != SkinnyMethod::kByRows || !(bf16 || int4 || args.dtype == DType::kF8Channel) ||
      !HasAlignedWords(args)) {
    return 0;
  }
  // Up to 16 rows of bf16 are faster in tiles: 54 us and 57, gate and up of an 8B model.
  if (gated && (args.task_count != 1 || HasBias(args) || (bf16 && args.rows <= 16))) return 0;
  using Channels = std::span<const int>;
  const Channels channels = int4    ? gated ? Channels(kSkinnyI4Gated) : kSkinnyI4Paired
                            : gated ? Channels(kSkinnyWholeGated)
                                    : kSkinnyWholePaired;
  const int most = Multiprocessors() / (gated ? 1 : 2);
  for (const int count : channels) {
    const int64_t tiles = TilesOf(args, gated && !int4 ? 2 * count : count);
    if (tiles <= most) return tiles >= most - most / 16 ? count : 0;
  }
  return 0;
}

// Whether the kernel of few rows runs, where no rows stay in one place.
bool IsFew(const SkinnyArgs& args) {
  if (args.method != SkinnyMethod::kByRows || args.rows > 8) return false;
  if (IsCoded(args)) return false;
  // Gate and up of bf16 with a tile for each multiprocessor are faster in tiles: 54 us and 56.
  return !(args.dtype == DType::kBF16 && IsGated(args.epilogue) &&
           TilesOf(args, kSkinnyGroupRows / 2) >= Multiprocessors());
}

// Which kernel runs, and the rows of weights of its boxes and tiles.
struct Division {
  SkinnyGeometry geometry;
  bool few;
  int box_rows, tile_rows;
};

Division DivideOutputs(const SkinnyArgs& args, SkinnyPlan* plan) {
  const bool gated = IsGated(args.epilogue), coded = IsCoded(args);
  const bool normed = args.x == nullptr && !coded;
  plan->task_count = args.task_count;
  plan->gated = gated ? 1 : 0;
  plan->plain = HasAlignedWords(args) && !HasBias(args) ? 1 : 0;
  const bool whole_rows =
      coded ? args.x_codes.kind != CodeKind::kE4m3Rows : args.dtype == DType::kBF16 && !normed;
  plan->whole_channels = whole_rows ? WholeChannels(args) : 0;
  plan->few_plain = args.rows == 1 && args.y_rows == nullptr &&
                    std::all_of(args.tasks, args.tasks + args.task_count, [](const SkinnyTask& t) {
                      return t.addend == nullptr && t.up_addend == nullptr;
                    });
  const bool whole = plan->whole_channels != 0, few = !whole && (normed || IsFew(args));
  // The kernels of few rows are those of 8.
  const int rows = args.method == SkinnyMethod::kFixed    ? kSkinnyMaxRows
                   : few || (whole && IsInt4(args.dtype)) ? args.rows
                                                          : std::max(args.rows, 9);
  const bool int4 = IsInt4(args.dtype);
  const SkinnyGeometry geometry = SkinnyGeometryOf(args.dtype, coded && !int4, rows);
  const int parts = gated ? 2 : 1;
  if (few) return {geometry, few, kSkinnyFewRows, kSkinnyFewRows};
  if (whole && int4) return {geometry, few, plan->whole_channels, plan->whole_channels};
  if (whole) return {geometry, few, plan->whole_channels, plan->whole_channels * parts};
  const int box_rows = kSkinnyGroupRows / parts;
  return {geometry, few, box_rows, geometry.groups * box_rows};
}

// What the plan has of the input; false where its map cannot be made.
bool PlanInput(const SkinnyArgs& args, const Division& division, SkinnyPlan* plan) {
  const bool coded = IsCoded(args);
  const SkinnyGeometry& geometry = division.geometry;
  plan->tile_units = (args.in + geometry.unit_k - 1) / geometry.unit_k;
  plan->in = args.in;
  plan->rows = args.rows;
  plan->x = args.x;
  plan->residual = args.residual;
  plan->norm_weight = args.norm_weight;
  plan->epsilon = args.epsilon;
  plan->x_rows = args.x_rows;
  plan->x_scales = args.x_codes.scales;
  plan->x_box_rows = geometry.columns;
  if (coded && plan->whole_channels != 0 &&
      !EncodeBoxes(&plan->x_scale_map, args.x_codes.scales, plan->tile_units, kCodeRows * 4, 1,
                   geometry.columns * 4, CU_TENSOR_MAP_SWIZZLE_NONE)) {
    return false;
  }
  const void* const x = coded ? static_cast<const void*>(args.x_codes.codes) : args.x;
  const uint64_t row_bytes = uint64_t(args.in) * (coded ? 1 : 2);
  return division.few || EncodeRows(&plan->x_map, x, args.rows, row_bytes, geometry.columns);
}

}  // namespace

size_t SkinnyWorkspaceBytes() {
  constexpr size_t kPieceBytes = (kSkinnyMaxRows / 8 + 1) * size_t{2 * 128 * 16};
  return static_cast<size_t>(Multiprocessors()) * 2 * 2 * kPieceBytes;
}

std::string MissingSkinny(DType dtype, int64_t in, int64_t out, int64_t rows) {
  const bool is_byte_or_bf16 = dtype == DType::kBF16 || dtype == DType::kF8Channel ||
                               dtype == DType::kF8Block128 || dtype == DType::kI8Channel;
  if (!is_byte_or_bf16 && !(HasPlanes(dtype) && IsInt4(dtype))) {
    return "weight type " + std::to_string(static_cast<int>(dtype));
  }
  const int64_t multiple = IsInt4(dtype) ? ScaleGroup(dtype) : 64;
  if (in < 64 || in > kMaxIn || in % multiple != 0) {
    return "in " + std::to_string(in) + ": want a multiple of " + std::to_string(multiple) +
           " up to " + std::to_string(kMaxIn);
  }
  if (out < 1 || out > kMaxOut) {
    return "out " + std::to_string(out) + ": want 1 to " + std::to_string(kMaxOut);
  }
  if (rows < 1 || rows > kSkinnyMaxRows) {
    return "rows " + std::to_string(rows) + ": want 1 to " + std::to_string(kSkinnyMaxRows);
  }
  return "";
}

bool SkinnyKeepsRows(const SkinnyArgs& args) { return WholeChannels(args) != 0; }

std::optional<CodeKind> SkinnyKeepsCodes(const SkinnyArgs& args) {
  if (args.dtype == DType::kBF16 || !SkinnyKeepsRows(args)) return std::nullopt;
  return IsInt4(args.dtype) ? CodeKind::kInt8Groups : CodeKind::kE4m3Groups;
}

bool SkinnyWantsRows(const SkinnyArgs& args) {
  return !SkinnyFusesNorm(args.rows, args.in) || WholeChannels(args) != 0 || !IsFew(args);
}

bool SkinnyFusesNorm(int64_t rows, int64_t in) { return rows <= 8 && rows * in <= kSkinnyMostKept; }

cudaError_t LaunchSkinny(const SkinnyArgs& args, cudaStream_t stream) {
  if (DeviceAttribute(cudaDevAttrComputeCapabilityMajor) != 9) return cudaErrorNotSupported;
  if (!ArgumentsHold(args)) return cudaErrorInvalidValue;
  SkinnyPlan plan{};
  const Division division = DivideOutputs(args, &plan);
  int64_t tiles = 0;
  for (int i = 0; i < args.task_count; ++i) {
    if (!PlanTask(args, args.tasks[i], division.box_rows, &plan.tasks[i], plan.weight_maps[i])) {
      return cudaErrorNotSupported;
    }
    plan.tasks[i].first_tile = static_cast<int32_t>(tiles);
    tiles += (args.tasks[i].out + division.tile_rows - 1) / division.tile_rows;
  }
  if (!PlanInput(args, division, &plan)) return cudaErrorNotSupported;
  plan.epilogue = args.epilogue;
  plan.place = args.place;
  plan.y_rows = args.y_rows;
  plan.pieces = reinterpret_cast<float*>(args.workspace);
  const SkinnyGeometry& geometry = division.geometry;
  const int count = static_cast<int>(tiles);
  const int blocks =
      plan.whole_channels != 0 ? count * (plan.gated != 0 ? 1 : 2)
      : division.few           ? DivideTiles(count, &plan)
                     // Weights that need no converting come at the memory's speed to fewer.
                     : DivideUnits(count, geometry.groups == 1 && geometry.resident == 1, &plan);
  if (plan.whole_channels != 0 && IsInt4(args.dtype)) {
    return LaunchSkinnyI4Whole(plan, args.dtype, geometry.columns, blocks, stream);
  }
  return LaunchPlan(plan, args.dtype, geometry.columns, blocks, stream);
}

}  // namespace tessera::kernels::cuda
