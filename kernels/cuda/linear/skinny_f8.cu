#include "kernels/cuda/linear/skinny_tile.cuh"
#include "kernels/cuda/linear/skinny_whole.cuh"

namespace tessera::kernels::cuda {

cudaError_t LaunchSkinnyF8(const SkinnyPlan& plan, DType dtype, int columns, int blocks,
                           cudaStream_t stream) {
  if (plan.whole_channels != 0) return LaunchSkinnyWhole<SkinnyF8Coded>(plan, blocks, stream);
  if (plan.x_scales != nullptr) {
    return LaunchSkinnyTiles<SkinnyF8Coded>(plan, columns, blocks, stream);
  }
  return dtype == DType::kF8Channel
             ? LaunchSkinnyFormat<SkinnyF8Channel>(plan, columns, blocks, stream)
             : LaunchSkinnyFormat<SkinnyF8Block>(plan, columns, blocks, stream);
}

}  // namespace tessera::kernels::cuda
