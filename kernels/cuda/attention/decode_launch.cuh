// Launches the decode kernels of one (page type, head size); see decode.cu.
#pragma once

#include "kernels/cuda/attention/decode_kernel.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {

// What a thread block has on sm_80, the least device that the kernels are built for.
inline constexpr int kAmpereSharedBytes = 163 * 1024;

template <typename Shape>
cudaError_t LaunchShape(DecodeKernelArgs args, uint32_t grid, cudaStream_t stream) {
  static_assert(DecodeShared<Shape>::Slots(kAmpereSharedBytes) > 0);
  const int slots = DecodeShared<Shape>::SlotsOf(args.ring, CurrentDeviceFacts().shared_bytes);
  const int bytes = DecodeShared<Shape>::Bytes(slots);
  args.slots = static_cast<uint32_t>(slots);
  auto* kernel = DecodeKernel<Shape>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return LaunchDependent(kernel, dim3(grid), dim3(Shape::kThreads + 32), static_cast<size_t>(bytes),
                         1, stream, args);
}

template <typename Element, int kHeadDim>
cudaError_t LaunchHeadDim(const DecodeKernelArgs& args, int32_t columns, uint32_t grid,
                          cudaStream_t stream) {
  if (columns <= 8) {
    return LaunchShape<DecodeShape<Element, kHeadDim, 8>>(args, grid, stream);
  }
  if (columns <= 16) {
    return LaunchShape<DecodeShape<Element, kHeadDim, 16>>(args, grid, stream);
  }
  if constexpr (MaxDecodeColumns(kHeadDim) > 16) {
    return LaunchShape<DecodeShape<Element, kHeadDim, 32>>(args, grid, stream);
  } else {
    return cudaErrorInvalidValue;
  }
}

template <typename Element>
cudaError_t LaunchElement(const DecodeKernelArgs& args, int32_t head_dim, int32_t columns,
                          uint32_t grid, cudaStream_t stream) {
  switch (head_dim) {
    case 64:
      return LaunchHeadDim<Element, 64>(args, columns, grid, stream);
    case 80:
      return LaunchHeadDim<Element, 80>(args, columns, grid, stream);
    case 96:
      return LaunchHeadDim<Element, 96>(args, columns, grid, stream);
    case 128:
      return LaunchHeadDim<Element, 128>(args, columns, grid, stream);
    case 256:
      return LaunchHeadDim<Element, 256>(args, columns, grid, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

// decode_bf16.cu and decode_e4m3.cu.
cudaError_t LaunchDecodeBf16(const DecodeKernelArgs& args, int32_t head_dim, int32_t columns,
                             uint32_t grid, cudaStream_t stream);
cudaError_t LaunchDecodeE4m3(const DecodeKernelArgs& args, int32_t head_dim, int32_t columns,
                             uint32_t grid, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
