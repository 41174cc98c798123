#include "kernels/cuda/linear/skinny_tile.cuh"

namespace tessera::kernels::cuda {

cudaError_t LaunchSkinnyI8(const SkinnyPlan& plan, int columns, int units, cudaStream_t stream) {
  return LaunchSkinnyFormat<SkinnyI8>(plan, columns, units, stream);
}

}  // namespace tessera::kernels::cuda
