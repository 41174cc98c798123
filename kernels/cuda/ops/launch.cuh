// Launching kernels so that the next one may start before this one has ended.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace tessera::kernels::cuda {

// Of the device that was current at the first call.
struct DeviceFacts {
  int major = 0;
  int multiprocessors = 0;
};
inline const DeviceFacts& CurrentDeviceFacts() {
  static const DeviceFacts facts = [] {
    DeviceFacts f;
    int device = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&f.major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&f.multiprocessors, cudaDevAttrMultiProcessorCount, device);
    return f;
  }();
  return facts;
}

// Launches `kernel` with programmatic stream serialization where the device has it. `cluster`
// blocks of the grid's x form a cluster; 1: none.
template <typename... Params, typename... Args>
cudaError_t LaunchDependent(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                            unsigned cluster, cudaStream_t stream, Args&&... args) {
  cudaLaunchAttribute attributes[2];
  unsigned count = 0;
  if (CurrentDeviceFacts().major >= 9) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = cluster;
    attributes[count].val.clusterDim.y = 1;
    attributes[count++].val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

}  // namespace tessera::kernels::cuda
