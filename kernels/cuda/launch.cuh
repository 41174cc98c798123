// Launching kernels so that the next one may start before this one has ended.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace tessera::kernels::cuda {

// Of the device that was current at the first call.
struct DeviceFacts {
  int major = 0;
  int multiprocessors = 0;
  int shared_bytes = 0;  // that a thread block may have
};
inline const DeviceFacts& CurrentDeviceFacts() {
  static const DeviceFacts facts = [] {
    DeviceFacts f;
    int device = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&f.major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&f.multiprocessors, cudaDevAttrMultiProcessorCount, device);
    cudaDeviceGetAttribute(&f.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return f;
  }();
  return facts;
}

// Once a kernel and device (a bit each in `prepared`): lets the kernel have `shared_bytes`.
inline cudaError_t PrepareKernel(const void* kernel, int shared_bytes,
                                 std::atomic<uint64_t>& prepared) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  const uint64_t bit = uint64_t{1} << (device & 63);
  if ((prepared.load(std::memory_order_relaxed) & bit) != 0) return cudaSuccess;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (error != cudaSuccess) return error;
  prepared.fetch_or(bit, std::memory_order_relaxed);
  return cudaSuccess;
}

// When a kernel may start: before the one in front of it has ended (programmatic stream
// serialization, where the device has it), or after.
enum class KernelStart : uint8_t { kEarly, kInOrder };

// Launches `kernel`. `cluster` blocks of the grid's x form a cluster; 1: none. A multiprocessor
// drains before its shared memory is divided anew: all kernels that are to overlap ask for the same
// division.
template <typename... Params, typename... Args>
cudaError_t LaunchKernel(KernelStart start, void (*kernel)(Params...), dim3 grid, dim3 block,
                         size_t shared_bytes, unsigned cluster, cudaStream_t stream,
                         Args&&... args) {
  cudaLaunchAttribute attributes[3];
  unsigned count = 0;
  if (CurrentDeviceFacts().major >= 9) {
    if (start == KernelStart::kEarly) {
      attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
    attributes[count].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    attributes[count++].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
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

template <typename... Params, typename... Args>
cudaError_t LaunchDependent(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                            unsigned cluster, cudaStream_t stream, Args&&... args) {
  return LaunchKernel(KernelStart::kEarly, kernel, grid, block, shared_bytes, cluster, stream,
                      std::forward<Args>(args)...);
}

}  // namespace tessera::kernels::cuda
