#include "kernels/cuda/linear/skinny_tile.cuh"

namespace tessera::kernels::cuda {

cudaError_t LaunchSkinnyBf16(const SkinnyPlan& plan, int columns, int units, cudaStream_t stream) {
  return LaunchSkinnyFormat<SkinnyBf16>(plan, columns, units, stream);
}

}  // namespace tessera::kernels::cuda
