#include "kernels/cuda/attention/decode_launch.cuh"

namespace tessera::kernels::cuda {

cudaError_t LaunchDecodeE4m3(const DecodeKernelArgs& args, int32_t head_dim, int32_t columns,
                             uint32_t grid, cudaStream_t stream) {
  return LaunchElement<E4m3>(args, head_dim, columns, grid, stream);
}

}  // namespace tessera::kernels::cuda
