// The CUDA backend: one device, its memory, its kernels.
#include "kernels/backend.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/cuda/catalog/linear.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/linear/skinny.h"
#include "kernels/cuda/linear/skinny_int4.h"
#include "kernels/cuda/ops/synthetic.h"
#include "kernels/cuda/ops/weight_decode.cuh"
#include "kernels/cuda/registry.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels {
namespace cuda {
namespace {

bool IsInt4(DType dtype) { return dtype >= DType::kI4G128 && dtype <= DType::kI4G64Zero; }

class CudaBackend final : public Backend {
 public:
  CudaBackend(const DeviceInfo& device, std::string costs_file)
      : device_(device), memory_(device), costs_(std::move(costs_file)) {
    Registry registry(catalog_, device_);
    RegisterCudaKernels(registry);
  }

  std::string name() const override {
    return absl::StrCat("cuda/sm_", device_.major, device_.minor);
  }
  const Catalog& catalog() const override { return catalog_; }
  Memory& memory() const override { return memory_; }
  bool generates() const override { return true; }
  Status Generate(const SyntheticTensor& tensor, std::byte* to) const override {
    const DeviceScope scope(device_.index);
    TESSERA_RETURN_IF_ERROR(
        StatusOf(LaunchSynthetic(tensor, to, cudaStreamPerThread), "making a tensor"));
    return StatusOf(cudaStreamSynchronize(cudaStreamPerThread), "making a tensor");
  }
  uint64_t activation_bytes() const override { return 2; }
  DType KvDType(DType /*weight*/, KvPages /*pages*/) const override { return DType::kBF16; }
  bool ReadsQuantizedRows(DType /*weight*/) const override { return false; }
  uint32_t batch_tokens() const override { return 8192; }
  uint32_t logits_rows() const override { return kLogitsRows; }

  // Weights are read as they are stored, int4 ones in the order of the tensor cores' fragments.
  StatusOr<WeightLayout> LinearLayout(DType dtype, uint64_t out, uint64_t in) const override {
    if (!WithWeightType(dtype, [](auto) {})) {
      return Error(absl::StatusCode::kUnimplemented,
                   {.what = absl::StrCat("no CUDA kernel reads ", InfoOf(dtype).name, " weights"),
                    .why = "the device reads floats, Q8_0, Q4_0, Q4_1 and the types with planes",
                    .fix = "tessera zoo quantize NAME --to i8-channel --quantize-head (or i4-g64, "
                           "bf16), or run it on the processor"});
    }
    const std::optional<uint64_t> bytes = StorageBytes(dtype, out, in);
    if (!bytes.has_value() || out > INT32_MAX || in > INT32_MAX) {
      return Error(
          absl::StatusCode::kUnimplemented,
          {.what = absl::StrCat("no CUDA layout for a ", InfoOf(dtype).name, " weight [", out, ", ",
                                in, "]"),
           .why = absl::StrCat("columns must be a multiple of ", InfoOf(dtype).block_elements),
           .fix = "store this tensor as BF16: tessera zoo quantize NAME --to bf16"});
    }
    const bool streamed =
        MissingStreamed(dtype, static_cast<int64_t>(in), static_cast<int64_t>(out)).empty();
    if (IsInt4(dtype) && streamed) {
      return WeightLayout{.transform = kInt4Layout, .bytes = PackedInt4Bytes(dtype, out, in)};
    }
    return WeightLayout{.transform = "", .bytes = *bytes};
  }

  void PackLinear(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical,
                  std::byte* packed) const override {
    PackInt4(dtype, static_cast<uint32_t>(out), static_cast<uint32_t>(in), canonical, packed);
  }

  size_t ScratchBytes(const ContextNeeds& /*needs*/) const override { return 0; }

  StatusOr<std::unique_ptr<ExecContext>> MakeContext(ThreadPool& pool,
                                                     const ContextNeeds& needs) const override {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<CudaContext> context,
                             CudaContext::Create(device_, memory_, costs_, pool, needs));
    return std::unique_ptr<ExecContext>(std::move(context));
  }

 private:
  DeviceInfo device_;
  Catalog catalog_;
  mutable DeviceMemory memory_;
  // Used by the thread that makes contexts: what earlier ones measured and tried.
  mutable KeptCosts<CostTable> costs_;
};

}  // namespace
}  // namespace cuda

std::vector<std::string> CudaDevices() {
  std::vector<std::string> lines;
  for (const cuda::DeviceInfo& device : cuda::Devices()) {
    lines.push_back(absl::StrFormat(
        "%d: %s, compute capability %d.%d, %d multiprocessors, %.1f GiB", device.index, device.name,
        device.major, device.minor, device.multiprocessors,
        static_cast<double>(device.memory_bytes) / (1 << 30)));
  }
  return lines;
}

StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(int device, std::string costs_file) {
  TESSERA_ASSIGN_OR_RETURN(const cuda::DeviceInfo found, cuda::FindDevice(device));
  {
    // The driver's own start, a tenth of a second, which would else be part of the first load.
    const cuda::DeviceScope scope(found.index);
    TESSERA_RETURN_IF_ERROR(cuda::StatusOf(cudaFree(nullptr), "opening the device"));
  }
  return std::unique_ptr<Backend>(
      std::make_unique<cuda::CudaBackend>(found, std::move(costs_file)));
}

}  // namespace tessera::kernels
