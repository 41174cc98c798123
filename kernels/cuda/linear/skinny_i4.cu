#include "kernels/cuda/linear/skinny_tile.cuh"

namespace tessera::kernels::cuda {

cudaError_t LaunchSkinnyI4(const SkinnyPlan& plan, DType dtype, int columns, int blocks,
                           cudaStream_t stream) {
  switch (dtype) {
    case DType::kI4G128:
      return LaunchSkinnyFormat<SkinnyI4<DType::kI4G128>>(plan, columns, blocks, stream);
    case DType::kI4G64:
      return LaunchSkinnyFormat<SkinnyI4<DType::kI4G64>>(plan, columns, blocks, stream);
    case DType::kI4G128Zero:
      return LaunchSkinnyFormat<SkinnyI4<DType::kI4G128Zero>>(plan, columns, blocks, stream);
    case DType::kI4G64Zero:
      return LaunchSkinnyFormat<SkinnyI4<DType::kI4G64Zero>>(plan, columns, blocks, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace tessera::kernels::cuda
