// How a kernel of the CUDA backend enters the catalog: one file in cuda/catalog with
// Register_<name>, and its word in kernels/CMakeLists.txt.
#pragma once

#include <string>

#include "kernels/catalog.h"
#include "kernels/cuda/device.h"

namespace tessera::kernels::cuda {

class Registry {
 public:
  Registry(Catalog& catalog, const DeviceInfo& device) : catalog_(catalog), device_(device) {}

  // `missing` as in KernelEntry.
  template <typename Op>
  void Add(const char* name, std::string (*missing)(const typename Op::Desc&),
           typename Kernel<Op>::RunFn run, int cost = 0) {
    catalog_.Add(
        KernelEntry<Op>{.kernel = {.run = run, .name = name}, .cost = cost, .missing = missing});
  }
  [[nodiscard]] const DeviceInfo& device() const { return device_; }

 private:
  Catalog& catalog_;
  const DeviceInfo& device_;
};

// Generated from the list of names.
void RegisterCudaKernels(Registry& registry);

}  // namespace tessera::kernels::cuda
