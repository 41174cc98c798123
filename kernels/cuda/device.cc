#include "kernels/cuda/device.h"

#include "absl/strings/str_cat.h"

namespace tessera::kernels::cuda {

Status StatusOf(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const bool memory = error == cudaErrorMemoryAllocation;
  return Error(
      memory ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable,
      {.what = absl::StrCat(what, " failed on the CUDA device"),
       .why = absl::StrCat(cudaGetErrorName(error), ": ", cudaGetErrorString(error)),
       .fix = memory ? "give the cache less memory (engine.memory) or load fewer models"
                     : "look at the driver's log (dmesg, nvidia-smi) and start the server again"});
}

std::vector<DeviceInfo> Devices() {
  std::vector<DeviceInfo> devices;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    // Not an error of ours: there is no driver, or nothing that it drives.
    (void)cudaGetLastError();
    return devices;
  }
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) continue;
    devices.push_back({.index = index,
                       .name = properties.name,
                       .major = properties.major,
                       .minor = properties.minor,
                       .multiprocessors = properties.multiProcessorCount,
                       .memory_bytes = properties.totalGlobalMem});
  }
  return devices;
}

StatusOr<DeviceInfo> FindDevice(int index) {
  std::string known;
  for (const DeviceInfo& device : Devices()) {
    if (device.index == index) {
      if (device.major == 8 || device.major == 9) return device;
      return Error(absl::StatusCode::kFailedPrecondition,
                   {.what = absl::StrCat("CUDA device ", index, " (", device.name,
                                         ") cannot run this backend"),
                    .why = absl::StrCat("its compute capability is ", device.major, ".",
                                        device.minor, ", the kernels are for 8.0 to 9.0"),
                    .fix = "set engine.device: cpu"});
    }
    absl::StrAppend(&known, known.empty() ? "" : ", ", device.index, " (", device.name, ")");
  }
  return Error(absl::StatusCode::kNotFound,
               {.what = absl::StrCat("there is no CUDA device ", index),
                .why = known.empty() ? "the CUDA driver shows none, or there is no driver"
                                     : absl::StrCat("the driver shows ", known),
                .fix = "set engine.device to one that is there, or to cpu"});
}

}  // namespace tessera::kernels::cuda
