#include <algorithm>

#include "kernels/cuda/linear/skinny_narrow.cuh"
#include "kernels/cuda/linear/skinny_narrow.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kMaxStages = 8;
constexpr uint32_t kMinStages = 3;
constexpr uint32_t kUnitListBytes = sizeof(NarrowUnit);

int SlabColumns(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return 32;
    case DType::kF8Channel:
    case DType::kF8Block128:
    case DType::kI8Channel:
      return 64;
    default:
      return 128;
  }
}

uint32_t Align(uint32_t bytes) { return (bytes + 127) / 128 * 128; }

}  // namespace

std::optional<NarrowPlan> PlanNarrow(const SkinnyJob& job, DType dtype, int64_t units,
                                     int multiprocessors, int* blocks) {
  if (job.rows > kSkinnyNarrowRows || units < 1) return std::nullopt;
  NarrowPlan plan{job};
  *blocks = static_cast<int>(std::min<int64_t>(units, std::max(1, multiprocessors)));
  plan.block_units = static_cast<int32_t>(units / *blocks);
  plan.extra_units = static_cast<int32_t>(units % *blocks);
  const int most = plan.block_units + (plan.extra_units > 0 ? 1 : 0);
  if (most > kNarrowMaxBlockUnits) return std::nullopt;
  const int columns = SlabColumns(dtype);
  plan.slabs = (job.in + columns - 1) / columns;
  plan.sums = Align(most * kUnitListBytes);
  const uint32_t tokens = job.rows <= 8 ? 8 : 16;
  const uint32_t tile = job.x != nullptr ? 0 : job.rows * plan.TileStride(NarrowTilePad(dtype));
  // The most units whose slabs leave room for enough of them to be under way.
  const int passes = (most + kNarrowMaxPassUnits - 1) / kNarrowMaxPassUnits;
  for (int units_a_pass = (most + passes - 1) / passes; units_a_pass > 0; --units_a_pass) {
    plan.pass_units = units_a_pass;
    plan.x_tile = Align(plan.sums + kNarrowWarps * tokens * plan.SumStride() * 4);
    plan.ring = Align(plan.x_tile + tile);
    const uint32_t stage = kNarrowWarps * units_a_pass * NarrowUnitBytes(columns == 128);
    if (plan.ring + kMinStages * stage > kNarrowSharedLimit) continue;
    plan.stages = static_cast<int32_t>(
        std::min<uint32_t>(kMaxStages, (kNarrowSharedLimit - plan.ring) / stage));
    plan.bytes = plan.ring + plan.stages * stage;
    return plan;
  }
  return std::nullopt;
}

cudaError_t LaunchNarrow(const NarrowPlan& plan, DType dtype, int blocks, cudaStream_t stream) {
  switch (dtype) {
    case DType::kBF16:
      return LaunchNarrowFormat<SkinnyBf16>(plan, blocks, stream);
    case DType::kF8Channel:
      return LaunchNarrowFormat<SkinnyF8Channel>(plan, blocks, stream);
    case DType::kF8Block128:
      return LaunchNarrowFormat<SkinnyF8Block>(plan, blocks, stream);
    case DType::kI8Channel:
      return LaunchNarrowFormat<SkinnyI8>(plan, blocks, stream);
    case DType::kI4G128:
      return LaunchNarrowFormat<SkinnyI4<DType::kI4G128>>(plan, blocks, stream);
    case DType::kI4G64:
      return LaunchNarrowFormat<SkinnyI4<DType::kI4G64>>(plan, blocks, stream);
    case DType::kI4G128Zero:
      return LaunchNarrowFormat<SkinnyI4<DType::kI4G128Zero>>(plan, blocks, stream);
    case DType::kI4G64Zero:
      return LaunchNarrowFormat<SkinnyI4<DType::kI4G64Zero>>(plan, blocks, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace tessera::kernels::cuda
