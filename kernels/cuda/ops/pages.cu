#include <algorithm>

#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops/pages.h"
#include "kernels/cuda/ops/weight_decode.cuh"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kStatsThreads = 128;

constexpr uint32_t ElementBytes(DType dtype) {
  return dtype == DType::kF32 ? 4 : dtype == DType::kF8E4M3 ? 1 : 2;
}

// As a constant, because device code calls no host function.
template <DType kType>
inline constexpr uint32_t kElementBytes = ElementBytes(kType);

__device__ __forceinline__ bool Valid(PageId page) { return page.value != PageId::kInvalid; }
__device__ __forceinline__ std::byte* AddressOf(std::byte* arena, PageId page) {
  return arena + uint64_t{page.value} * kPageUnitBytes;
}

// The elements of a 16-byte chunk.
template <DType kType>
__device__ __forceinline__ void DecodeChunk(uint4 raw, float (&v)[16 / kElementBytes<kType>]) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kType == DType::kF32) {
      v[i] = __uint_as_float(words[i]);
    } else if constexpr (kType == DType::kF8E4M3) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        __nv_fp8_e4m3 code;
        code.__x = static_cast<__nv_fp8_storage_t>(words[i] >> (8 * j) & 0xff);
        v[4 * i + j] = static_cast<float>(code);
      }
    } else {
      const float2 pair = kType == DType::kBF16 ? Bf16Pair(words[i]) : F16Pair(words[i]);
      v[2 * i] = pair.x;
      v[2 * i + 1] = pair.y;
    }
  }
}

// A block is one head of one page; a thread, a 16-byte column of one logical page.
template <DType kType>
__global__ void __launch_bounds__(kStatsThreads)
    PageStatsKernel(const PageStatsArgs args, uint64_t statistics_offset) {
  constexpr uint32_t kElement = kElementBytes<kType>;
  constexpr int kColumns = 16 / kElement;
  LetNextStart();
  WaitForPrior();
  const PageId page = args.pages[blockIdx.y];
  if (!Valid(page)) return;
  const uint32_t head = blockIdx.x;
  const uint32_t head_dim = args.kv.head_dim;
  std::byte* base = AddressOf(args.arena, page);
  const std::byte* keys = base + HeadOffset(head, head_dim, kElement);
  float* statistics = reinterpret_cast<float*>(base + statistics_offset) +
                      uint64_t{head} * (kPageTokens / kLogicalPageTokens) * 2 * head_dim;
  const uint32_t row_bytes = head_dim * kElement;
  const uint32_t chunks = row_bytes / 16;
  for (uint32_t i = threadIdx.x; i < chunks * 4; i += kStatsThreads) {
    const uint32_t part = i / chunks;
    const uint32_t column = i % chunks * 16;
    float low[kColumns], high[kColumns];
#pragma unroll
    for (int t = 0; t < kLogicalPageTokens; ++t) {
      const uint32_t offset = PlaneOffset(part * kLogicalPageTokens + t, column, row_bytes);
      float v[kColumns];
      DecodeChunk<kType>(*reinterpret_cast<const uint4*>(keys + offset), v);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        low[c] = t == 0 ? v[c] : fminf(low[c], v[c]);
        high[c] = t == 0 ? v[c] : fmaxf(high[c], v[c]);
      }
    }
    float* minimum = statistics + part * 2 * head_dim + column / kElement;
#pragma unroll
    for (int c = 0; c < kColumns; c += 4) {
      *reinterpret_cast<float4*>(minimum + c) =
          make_float4(low[c], low[c + 1], low[c + 2], low[c + 3]);
      *reinterpret_cast<float4*>(minimum + head_dim + c) =
          make_float4(high[c], high[c + 1], high[c + 2], high[c + 3]);
    }
  }
}

template <DType kType>
cudaError_t LaunchStats(const PageStatsArgs& args, cudaStream_t stream) {
  return LaunchDependent(PageStatsKernel<kType>, dim3(args.kv.kv_heads, args.count),
                         dim3(kStatsThreads), 0, 1, stream, args, args.kv.statistics_offset());
}

}  // namespace

std::string MissingPageStats(const KvFormat& kv) {
  if (!kv.key_statistics) return "pages without statistics";
  if (kv.dtype != DType::kF32 && kv.dtype != DType::kF16 && kv.dtype != DType::kBF16 &&
      kv.dtype != DType::kF8E4M3) {
    return "KV type " + std::to_string(static_cast<int>(kv.dtype));
  }
  const uint32_t multiple = 16 / ElementBytes(kv.dtype);
  if (kv.kv_heads == 0 || kv.head_dim == 0 || kv.head_dim % multiple != 0) {
    return "head_dim " + std::to_string(kv.head_dim) + " (a multiple of " +
           std::to_string(multiple) + ")";
  }
  return "";
}

cudaError_t LaunchPageStats(const PageStatsArgs& args, cudaStream_t stream) {
  if (args.count == 0) return cudaSuccess;
  switch (args.kv.dtype) {
    case DType::kF32:
      return LaunchStats<DType::kF32>(args, stream);
    case DType::kF16:
      return LaunchStats<DType::kF16>(args, stream);
    case DType::kBF16:
      return LaunchStats<DType::kBF16>(args, stream);
    case DType::kF8E4M3:
      return LaunchStats<DType::kF8E4M3>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace tessera::kernels::cuda
