#include "kernels/cuda/linear/skinny_i4_whole.cuh"

namespace tessera::kernels::cuda {

cudaError_t LaunchSkinnyI4Whole(const SkinnyPlan& plan, DType dtype, int columns, int blocks,
                                cudaStream_t stream) {
  switch (dtype) {
    case DType::kI4G128:
      return LaunchI4Product<SkinnyI4<DType::kI4G128>>(plan, columns, blocks, stream);
    case DType::kI4G64:
      return LaunchI4Product<SkinnyI4<DType::kI4G64>>(plan, columns, blocks, stream);
    case DType::kI4G128Zero:
      return LaunchI4Product<SkinnyI4<DType::kI4G128Zero>>(plan, columns, blocks, stream);
    case DType::kI4G64Zero:
      return LaunchI4Product<SkinnyI4<DType::kI4G64Zero>>(plan, columns, blocks, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace tessera::kernels::cuda
