// One CUDA device as this process sees it, and what its calls return.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "config/foundation/status.h"

namespace tessera::kernels::cuda {

// Facts of a device that its kernels are chosen by. Its settings are never changed.
struct DeviceInfo {
  int index = 0;
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int major = 0;     // compute capability
  int minor = 0;
  int multiprocessors = 0;
  uint64_t memory_bytes = 0;
};

// OK, or `what` with the driver's words: RESOURCE_EXHAUSTED where memory is short, else UNAVAILABLE
// (the device, or this process's use of it, is lost).
[[nodiscard]] Status StatusOf(cudaError_t error, const char* what);

// The devices that the driver shows; empty without a driver.
[[nodiscard]] std::vector<DeviceInfo> Devices();
// NOT_FOUND naming what there is, FAILED_PRECONDITION but for compute capability 8 and 9.
[[nodiscard]] StatusOr<DeviceInfo> FindDevice(int index);

// Makes a device current for this thread while it lives.
class DeviceScope {
 public:
  explicit DeviceScope(int index) {
    if (cudaGetDevice(&before_) != cudaSuccess) before_ = index;
    if (before_ != index) (void)cudaSetDevice(index);
    changed_ = before_ != index;
  }
  ~DeviceScope() {
    if (changed_) (void)cudaSetDevice(before_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace tessera::kernels::cuda
