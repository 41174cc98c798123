#include "kernels/cuda/linear/skinny_tile.cuh"

namespace tessera::kernels::cuda {

cudaError_t LaunchSkinnyF8(const SkinnyPlan& plan, DType dtype, int columns, int units,
                           cudaStream_t stream) {
  return dtype == DType::kF8Channel
             ? LaunchSkinnyFormat<SkinnyF8Channel>(plan, columns, units, stream)
             : LaunchSkinnyFormat<SkinnyF8Block>(plan, columns, units, stream);
}

}  // namespace tessera::kernels::cuda
