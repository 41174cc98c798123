#include "kernels/cuda/linear/skinny_tile.cuh"

namespace tessera::kernels::cuda {

cudaError_t LaunchSkinnyI8(const SkinnyPlan& plan, int columns, int blocks, cudaStream_t stream) {
  return LaunchSkinnyFormat<SkinnyI8>(plan, columns, blocks, stream);
}

}  // namespace tessera::kernels::cuda
