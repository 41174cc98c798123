#include <algorithm>

#include "kernels/cuda/ops/synthetic.h"

namespace tessera::kernels::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr uint64_t kBlocks = 4096;

__global__ void __launch_bounds__(kThreads)
    SyntheticKernel(const SyntheticTensor tensor, uint32_t* out) {
  const uint64_t words = (tensor.bytes + 3) / 4;
  for (uint64_t word = uint64_t{blockIdx.x} * kThreads + threadIdx.x; word < words;
       word += uint64_t{gridDim.x} * kThreads) {
    out[word] = SyntheticWord(tensor, word);
  }
}

}  // namespace

cudaError_t LaunchSynthetic(const SyntheticTensor& tensor, std::byte* out, cudaStream_t stream) {
  const uint64_t words = (tensor.bytes + 3) / 4;
  if (words == 0) return cudaSuccess;
  const uint64_t blocks = std::min(kBlocks, (words + kThreads - 1) / kThreads);
  SyntheticKernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
      tensor, reinterpret_cast<uint32_t*>(out));
  return cudaGetLastError();
}

}  // namespace tessera::kernels::cuda
