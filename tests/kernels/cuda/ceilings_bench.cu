// What this device can do at most: a large copy inside its memory, large matrix products of bf16
// and of e4m3, a copy from pinned host memory. One line of `name value` pairs: GB/s, TFLOP/s, GB/s.
#include <cuda_fp8.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/cuda/linear/gemm.h"
#include "kernels/weight_planes.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::kernels::cuda {
namespace {

using check::DeviceBuffer;
using check::Rng;

constexpr int32_t kSize = 8192;

// TFLOP/s of a product of kSize rows, columns and terms.
double GemmRate(const GemmArgs& args) {
  constexpr int kRuns = 12;
  std::byte* workspace = nullptr;
  if (cudaMalloc(&workspace, kGemmWorkspaceBytes) != cudaSuccess) return 0;
  const auto engine =
      GemmEngine::Create({.workspace = workspace, .workspace_bytes = kGemmWorkspaceBytes});
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", FourLines(engine.status()).c_str());
    return 0;
  }
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  float best = 1e30f;
  for (int run = 0; run < kRuns; ++run) {
    cudaEventRecord(begin, nullptr);
    if (!(*engine)->Run(args, nullptr).ok()) return 0;
    cudaEventRecord(end, nullptr);
    cudaEventSynchronize(end);
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    if (run > 2 && ms < best) best = ms;
  }
  cudaFree(workspace);
  return 2.0 * kSize * kSize * kSize / (best * 1e-3) * 1e-12;
}

// Of normally distributed numbers.
double Bf16Peak() {
  std::vector<__nv_bfloat16> values(size_t{kSize} * kSize);
  Rng rng(3);
  for (__nv_bfloat16& value : values) value = __float2bfloat16(rng.Normal());
  DeviceBuffer<__nv_bfloat16> x(values), weight(values), y(values);
  return GemmRate({.dtype = DType::kBF16,
                   .out = kSize,
                   .in = kSize,
                   .rows = kSize,
                   .x = x.get(),
                   .weight = reinterpret_cast<const std::byte*>(weight.get()),
                   .y = y.get(),
                   .y_stride = kSize});
}

// Of normally distributed codes, with a scale a row and an output; results are bf16.
double E4m3Peak() {
  const WeightPlanes planes = PlanesOf(DType::kF8Channel, kSize, kSize);
  std::vector<uint8_t> codes(planes.bytes);
  Rng rng(5);
  for (uint8_t& code : codes) code = __nv_cvt_float_to_fp8(rng.Normal(), __NV_SATFINITE, __NV_E4M3);
  const std::vector<float> ones(kSize, 1.f);
  std::memcpy(codes.data() + planes.scales_offset, ones.data(), planes.scales_bytes);
  DeviceBuffer<uint8_t> weight(codes);
  DeviceBuffer<float> scales(ones);
  DeviceBuffer<__nv_bfloat16> y(size_t{kSize} * kSize);
  return GemmRate({.dtype = DType::kF8Channel,
                   .out = kSize,
                   .in = kSize,
                   .rows = kSize,
                   .x_codes = weight.get(),
                   .x_scales = scales.get(),
                   .weight = reinterpret_cast<const std::byte*>(weight.get()),
                   .y = y.get(),
                   .y_stride = kSize});
}

// GB/s from pinned host memory.
double UploadRate() {
  constexpr size_t kBytes = size_t{1} << 30;
  void *host = nullptr, *device = nullptr;
  if (cudaMallocHost(&host, kBytes) != cudaSuccess) return 0;
  if (cudaMalloc(&device, kBytes) != cudaSuccess) return 0;
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  float best = 1e30f;
  for (int run = 0; run < 4; ++run) {
    cudaEventRecord(begin, nullptr);
    cudaMemcpyAsync(device, host, kBytes, cudaMemcpyHostToDevice, nullptr);
    cudaEventRecord(end, nullptr);
    cudaEventSynchronize(end);
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    if (ms < best) best = ms;
  }
  cudaFree(device);
  cudaFreeHost(host);
  return kBytes / (best * 1e-3) * 1e-9;
}

}  // namespace
}  // namespace tessera::kernels::cuda

int main() {
  using namespace tessera::kernels::cuda;
  const double copy = tessera::check::CopyBandwidth() * 1e-9;
  const double upload = UploadRate();
  std::printf("device %s\n", tessera::check::DeviceName().c_str());
  std::printf("copy_gb_s %.1f gemm_tflop_s %.1f gemm_e4m3_tflop_s %.1f upload_gb_s %.2f\n", copy,
              Bf16Peak(), E4m3Peak(), upload);
  return 0;
}
