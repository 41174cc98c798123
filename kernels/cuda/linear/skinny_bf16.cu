#include "kernels/cuda/linear/skinny_tile.cuh"
#include "kernels/cuda/linear/skinny_whole.cuh"

namespace tessera::kernels::cuda {

cudaError_t LaunchSkinnyBf16(const SkinnyPlan& plan, int columns, int blocks, cudaStream_t stream) {
  if (plan.whole_channels != 0) return LaunchSkinnyWhole<SkinnyBf16>(plan, blocks, stream);
  return LaunchSkinnyFormat<SkinnyBf16>(plan, columns, blocks, stream);
}

}  // namespace tessera::kernels::cuda
