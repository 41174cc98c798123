#include "server/core/startup.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/foundation/log.h"
#include "server/core/memory_plan.h"

namespace tessera::server {

kernels::CpuIsa IsaOf(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAuto:
      return kernels::CpuIsa::kAuto;
    case CpuIsa::kAmx:
      return kernels::CpuIsa::kAmx;
    case CpuIsa::kAvx512:
      return kernels::CpuIsa::kAvx512;
    case CpuIsa::kAvx2:
      return kernels::CpuIsa::kAvx2;
  }
  return kernels::CpuIsa::kAuto;
}

std::string ProcessorCostsFile(const StoreSettings& store) {
  return store.root + "/processor-costs.txt";
}

StatusOr<std::shared_ptr<const kernels::Backend>> MakeBackend(const EngineSettings& settings,
                                                              const StoreSettings& store) {
  const bool automatic = settings.device == DeviceKind::kAuto;
  if (settings.device == DeviceKind::kCuda || (automatic && !kernels::CudaDevices().empty())) {
    StatusOr<std::unique_ptr<kernels::Backend>> device = kernels::MakeCudaBackend(
        static_cast<int>(settings.device_index), store.root + "/device-costs.txt");
    if (device.ok()) return std::shared_ptr<const kernels::Backend>(*std::move(device));
    if (!automatic) return device.status();
    LogWarning("device_passed_over", {{"why", device.status().message()}});
  }
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<const kernels::Backend> cpu,
                           kernels::MakeCpuBackend(IsaOf(settings.isa), ProcessorCostsFile(store)));
  return cpu;
}

std::string WhyDevice(const EngineSettings& settings) {
  if (settings.device != DeviceKind::kAuto) return "as engine.device says";
  const std::string devices = absl::StrJoin(kernels::CudaDevices(), "; ");
  return absl::StrCat("engine.device is auto, ",
                      devices.empty() ? "and this build and machine have no CUDA device" : devices);
}

uint32_t BatchTokensOf(const EngineSettings& settings, const kernels::Backend& backend) {
  if (settings.max_batch_tokens > 0) return static_cast<uint32_t>(settings.max_batch_tokens);
  return std::max(backend.batch_tokens(), static_cast<uint32_t>(settings.max_running));
}

scheduler::EngineOptions EngineOptionsOf(const EngineSettings& settings,
                                         const kernels::Backend& backend) {
  scheduler::EngineOptions options;
  options.threads = static_cast<int>(settings.threads);
  options.max_batch_tokens = BatchTokensOf(settings, backend);
  options.max_running = static_cast<uint32_t>(settings.max_running);
  return options;
}

blockzoo::CacheChoice CacheChoiceOf(const KvSettings& kv) {
  using Choice = blockzoo::CacheChoice;
  Choice choice;
  switch (kv.dtype) {
    case KvDtype::kAuto:
      choice.kv_dtype = Choice::KvDType::kAuto;
      break;
    case KvDtype::kF32:
      choice.kv_dtype = Choice::KvDType::kF32;
      break;
    case KvDtype::kF16:
      choice.kv_dtype = Choice::KvDType::kF16;
      break;
    case KvDtype::kBf16:
      choice.kv_dtype = Choice::KvDType::kBF16;
      break;
    case KvDtype::kF8:
      choice.kv_dtype = Choice::KvDType::kF8;
      break;
  }
  if (kv.key_statistics) choice.key_statistics = Choice::KeyStatistics::kOn;
  return choice;
}

StatusOr<std::unique_ptr<blockzoo::Zoo>> OpenZooToServe(const StoreSettings& store) {
  blockzoo::ZooOptions options;
  options.directory = store.root;
  options.reserve_bytes = static_cast<uint64_t>(store.reserve.bytes);
  options.memory_bytes = FreeMemoryBytes();
  StatusOr<std::unique_ptr<blockzoo::Zoo>> zoo = blockzoo::Zoo::Open(options);
  if (zoo.ok() || absl::IsNotFound(zoo.status())) return zoo;
  // A directory that may not be written still serves.
  options.mode = blockzoo::ZooMode::kReadOnly;
  StatusOr<std::unique_ptr<blockzoo::Zoo>> read_only = blockzoo::Zoo::Open(options);
  if (!read_only.ok()) return zoo;
  LogWarning("zoo_read_only", {{"directory", store.root}, {"why", zoo.status().message()}});
  return read_only;
}

}  // namespace tessera::server
