// What the launches of both kinds of skinny kernels share.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

namespace tessera::kernels::cuda {

// Once a kernel and device (a bit each in `prepared`): lets the kernel have `shared_bytes`.
inline cudaError_t PrepareSkinnyKernel(const void* kernel, int shared_bytes,
                                       std::atomic<uint64_t>& prepared) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  const uint64_t bit = uint64_t{1} << (device & 63);
  if ((prepared.load(std::memory_order_relaxed) & bit) != 0) return cudaSuccess;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (error != cudaSuccess) return error;
  // A multiprocessor drains before its shared memory is divided anew: all kernels that are to
  // overlap ask for the same division.
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                               cudaSharedmemCarveoutMaxShared);
  if (error != cudaSuccess) return error;
  prepared.fetch_or(bit, std::memory_order_relaxed);
  return cudaSuccess;
}

// With programmatic dependent launch; `attribute` must outlive the launch.
inline cudaLaunchConfig_t SkinnyLaunchConfig(int blocks, int threads, size_t shared_bytes,
                                             cudaStream_t stream, cudaLaunchAttribute* attribute) {
  attribute->id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute->val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attribute;
  config.numAttrs = 1;
  return config;
}

}  // namespace tessera::kernels::cuda
