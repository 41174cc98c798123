// What this device can do at most: a large copy inside its memory, a large bf16 matrix product, a
// copy from pinned host memory. One line of `name value` pairs: GB/s, TFLOP/s, GB/s.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/cuda/linear/gemm.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::kernels::cuda {
namespace {

using check::DeviceBuffer;
using check::Rng;

// TFLOP/s of x W^T with 8192 rows, columns and terms, of random numbers.
double GemmPeak() {
  constexpr int32_t kSize = 8192;
  constexpr int kRuns = 12;
  std::vector<__nv_bfloat16> values(size_t{kSize} * kSize);
  Rng rng(3);
  for (__nv_bfloat16& value : values) value = __float2bfloat16(rng.Normal());
  DeviceBuffer<__nv_bfloat16> x(values), weight(values), y(values);
  std::byte* workspace = nullptr;
  if (cudaMalloc(&workspace, kGemmWorkspaceBytes) != cudaSuccess) return 0;
  const auto engine =
      GemmEngine::Create({.workspace = workspace, .workspace_bytes = kGemmWorkspaceBytes});
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", FourLines(engine.status()).c_str());
    return 0;
  }
  const GemmArgs args{.dtype = DType::kBF16,
                      .out = kSize,
                      .in = kSize,
                      .rows = kSize,
                      .x = x.get(),
                      .weight = reinterpret_cast<const std::byte*>(weight.get()),
                      .y = y.get(),
                      .y_stride = kSize};
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
  return 2.0 * kSize * kSize * kSize / (best * 1e-3) * 1e-12;
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
  std::printf("copy_gb_s %.1f gemm_tflop_s %.1f upload_gb_s %.2f\n", copy, GemmPeak(), upload);
  return 0;
}
