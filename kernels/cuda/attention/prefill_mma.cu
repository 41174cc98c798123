// Prefill attention with mma.sync and cp.async: every head size and page type, compute capability
// 8.0 and newer.
//
// A block of eight warps takes items in turn, 16 rows a warp, and walks the item's keys a page at a
// time. Copies run one product ahead: the values of a page load beside its scores, the keys of the
// next beside the softmax. e4m3 pages are copied as they are and converted to bf16 in shared
// memory, which is exact.
#include <cuda_fp8.h>

#include "kernels/cuda/attention/prefill_tile.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

using prefill::Item;
using prefill::KernelArgs;

constexpr int kThreads = 256;
constexpr int kKeys = kPageTokens;  // of a tile

// Shared memory: queries, keys, values, and for e4m3 the pages' own bytes of keys and of values.
template <int kDim, bool kE4m3>
struct Shape {
  static constexpr int kElementBytes = kE4m3 ? 1 : 2;
  static constexpr int kPlane = PlaneBytes(kDim, 2);
  static constexpr int kRawPlane = PlaneBytes(kDim, kElementBytes);
  static constexpr int kKeysAt = 2 * kPlane;
  static constexpr int kValuesAt = kKeysAt + kPlane;
  static constexpr int kRawKeysAt = kE4m3 ? kValuesAt + kPlane : kKeysAt;
  static constexpr int kRawValuesAt = kE4m3 ? kRawKeysAt + kRawPlane : kValuesAt;
  static constexpr int kSharedBytes = kRawValuesAt + kRawPlane;
};

// The token that byte `offset` of a plane belongs to.
template <int kRowBytes>
__device__ __forceinline__ int TokenAt(uint32_t offset) {
  uint32_t left = kRowBytes;
  uint32_t width = PanelWidth(left);
  while (offset >= kPageTokens * width) {
    offset -= kPageTokens * width;
    left -= width;
    width = PanelWidth(left);
  }
  return static_cast<int>(offset / width);
}

// Starts the copy of a page's plane; tokens that no row of the item sees become zeros.
template <int kDim, bool kE4m3>
__device__ __forceinline__ void LoadPlane(const KernelArgs& args, const Item& item, int page,
                                          uint32_t plane, std::byte* shared) {
  using S = Shape<kDim, kE4m3>;
  const std::byte* from = args.call.arena + uint64_t{item.pages[page].value} * kPageUnitBytes +
                          HeadOffset(item.kv_head, kDim, S::kElementBytes) + plane * S::kRawPlane;
  const int first = item.first_key - page * kKeys;
  const int last = item.last_key - page * kKeys;
  for (int i = threadIdx.x * 16; i < S::kRawPlane; i += kThreads * 16) {
    const int token = TokenAt<kDim * S::kElementBytes>(i);
    CopyAsync16(shared + i, from + i, token >= first && token <= last);
  }
}

// bf16 of a plane of e4m3, each in its own panels.
template <int kDim>
__device__ __forceinline__ void ConvertPlane(const std::byte* raw, std::byte* plane) {
  constexpr int kChunks = kDim / 8;  // of 8 elements
  for (int i = threadIdx.x; i < kKeys * kChunks; i += kThreads) {
    const int token = i / kChunks;
    const int chunk = i % kChunks;
    const uint2 bytes = *reinterpret_cast<const uint2*>(raw + PlaneOffset(token, chunk * 8, kDim));
    uint32_t word[4];
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      const uint32_t half = pair < 2 ? bytes.x : bytes.y;
      const auto codes = static_cast<__nv_fp8x2_storage_t>(half >> (pair % 2 * 16));
      const float2 value = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(codes, __NV_E4M3)));
      word[pair] = PackBf16(value.x, value.y);
    }
    *reinterpret_cast<uint4*>(plane + PlaneOffset(token, chunk * 16, 2 * kDim)) =
        make_uint4(word[0], word[1], word[2], word[3]);
  }
}

// Offset of byte 32 step + 16 half of a token's row of bf16: panels begin at multiples of 32 bytes,
// so the half is one bit of the swizzled offset, and all that depends on the step is constant.
template <int kDim>
__device__ __forceinline__ uint32_t ChunkOffset(int token, int step, int half) {
  return PlaneOffset(token, step * 32, 2 * kDim) ^ (half * 16);
}

// value[4 i ...] += a b.
template <int kCount>
__device__ __forceinline__ void Multiply(float (&value)[kCount], int i, const uint32_t (&a)[4],
                                         uint32_t b0, uint32_t b1) {
  float d[4] = {value[4 * i], value[4 * i + 1], value[4 * i + 2], value[4 * i + 3]};
  MmaBf16(d, a, b0, b1);
#pragma unroll
  for (int j = 0; j < 4; ++j) value[4 * i + j] = d[j];
}

// score = queries keys^T for the warp's rows; `queries` is the plane that has them, from row `row`.
template <int kDim>
__device__ __forceinline__ void MultiplyKeys(float (&score)[kKeys / 2], const std::byte* queries,
                                             int row, const std::byte* keys) {
  const int lane = LaneId();
#pragma unroll
  for (int i = 0; i < kKeys / 2; ++i) score[i] = 0;
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    uint32_t a[4];
    LoadMatrix4(a, queries + ChunkOffset<kDim>(row + lane % 16, step, lane / 16));
#pragma unroll
    for (int pair = 0; pair < kKeys / 16; ++pair) {
      uint32_t b[4];
      const int key = pair * 16 + lane / 16 * 8 + lane % 8;
      LoadMatrix4(b, keys + ChunkOffset<kDim>(key, step, lane / 8 % 2));
      Multiply(score, 2 * pair, a, b[0], b[1]);
      Multiply(score, 2 * pair + 1, a, b[2], b[3]);
    }
  }
}

// output += weights values.
template <int kDim>
__device__ __forceinline__ void MultiplyValues(float (&output)[kDim / 2],
                                               const float (&weight)[kKeys / 2],
                                               const std::byte* values) {
  const int lane = LaneId();
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    uint32_t a[4];
    prefill::PackWeights<__nv_bfloat16>(weight, step, a);
    const int key = step * 16 + lane % 16;
#pragma unroll
    for (int pair = 0; pair < kDim / 16; ++pair) {
      uint32_t b[4];
      LoadMatrix4Transposed(b, values + ChunkOffset<kDim>(key, pair, lane / 16));
      Multiply(output, 2 * pair, a, b[0], b[1]);
      Multiply(output, 2 * pair + 1, a, b[2], b[3]);
    }
  }
}

template <int kDim, bool kE4m3>
__device__ __forceinline__ void RunItem(const KernelArgs& args, const Item& item,
                                        std::byte* shared) {
  using S = Shape<kDim, kE4m3>;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  prefill::Softmax softmax = prefill::MakeSoftmax(args, item, 16 * warp);
  const int low = item.position + prefill::QueryOf(args, item.pair_begin + 16 * warp);
  const int high = item.position + prefill::QueryOf(args, item.pair_begin + 16 * warp + 15);
  float output[kDim / 2] = {};
  float score[kKeys / 2];

  prefill::LoadQueries<kDim, kThreads>(args, item, threadIdx.x, shared);
  int page = item.first_key / kKeys;
  const int last = item.last_key / kKeys;
  LoadPlane<kDim, kE4m3>(args, item, page, 0, shared + S::kRawKeysAt);
  CopyAsyncCommit();
  for (; page <= last; ++page) {
    LoadPlane<kDim, kE4m3>(args, item, page, 1, shared + S::kRawValuesAt);
    CopyAsyncCommit();
    CopyAsyncWait<1>();
    __syncthreads();
    if constexpr (kE4m3) {
      ConvertPlane<kDim>(shared + S::kRawKeysAt, shared + S::kKeysAt);
      __syncthreads();
    }
    MultiplyKeys<kDim>(score, shared + warp / 4 * S::kPlane, warp % 4 * 16, shared + S::kKeysAt);
    __syncthreads();
    if (page < last) LoadPlane<kDim, kE4m3>(args, item, page + 1, 0, shared + S::kRawKeysAt);
    CopyAsyncCommit();
    const int key = page * kKeys;
    if (key + kKeys - 1 > low || (args.call.window > 0 && key <= high - args.call.window)) {
      softmax.Mask(score, key, args.call.window);
    }
    float correction[2];
    softmax.Update(score, args.scale_log2, correction);
    if (prefill::AnyFactor(correction)) prefill::ScaleRows(output, correction);
    CopyAsyncWait<1>();
    __syncthreads();
    if constexpr (kE4m3) {
      ConvertPlane<kDim>(shared + S::kRawValuesAt, shared + S::kValuesAt);
      __syncthreads();
    }
    MultiplyValues<kDim>(output, score, shared + S::kValuesAt);
    __syncthreads();
  }
  const prefill::RowEnds ends = softmax.End(args, item);
  if (item.partial == PrefillPlanItem::kWhole) {
    __nv_bfloat16* row[2];
    prefill::FindRows(args, item, 16 * warp, row);
    prefill::ScaleRows(output, ends.factor);
    prefill::StoreRows(output, row, 0);
  } else {
    float* row[2];
    prefill::StoreStatistics(args, item, 16 * warp, ends, row);
    prefill::StoreRows(output, row, 0);
  }
}

template <int kDim, bool kE4m3>
__global__ void __launch_bounds__(kThreads, PrefillMmaBlocks(kDim))
    PrefillMmaKernel(const __grid_constant__ KernelArgs args) {
  extern __shared__ __align__(1024) std::byte shared[];
  WaitForPrior();
  LetNextStart();
  for (uint32_t index = blockIdx.x;; index += gridDim.x) {
    const Item item = prefill::FindItem(args, index);
    if (item.pairs == 0) return;
    RunItem<kDim, kE4m3>(args, item, shared);
  }
}

template <int kDim, bool kE4m3>
cudaError_t Launch(const PrefillArgs& args, cudaStream_t stream) {
  struct Facts {
    cudaError_t error;
    int resident;
  };
  constexpr int kBytes = Shape<kDim, kE4m3>::kSharedBytes;
  static const Facts facts = [] {
    int resident = 0;
    cudaError_t error = cudaFuncSetAttribute(PrefillMmaKernel<kDim, kE4m3>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (error == cudaSuccess) {
      error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
          &resident, PrefillMmaKernel<kDim, kE4m3>, kThreads, kBytes);
    }
    return Facts{error, resident};
  }();
  if (facts.error != cudaSuccess) return facts.error;
  return LaunchDependent(PrefillMmaKernel<kDim, kE4m3>,
                         dim3(CurrentDeviceFacts().multiprocessors * facts.resident),
                         dim3(kThreads), kBytes, 1, stream, prefill::MakeKernelArgs(args));
}

template <bool kE4m3>
cudaError_t LaunchDim(const PrefillArgs& args, cudaStream_t stream) {
  switch (args.head_dim) {
    case 64:
      return Launch<64, kE4m3>(args, stream);
    case 80:
      return Launch<80, kE4m3>(args, stream);
    case 96:
      return Launch<96, kE4m3>(args, stream);
    case 128:
      return Launch<128, kE4m3>(args, stream);
    default:
      return Launch<256, kE4m3>(args, stream);
  }
}

}  // namespace

cudaError_t LaunchPrefillMma(const PrefillArgs& args, cudaStream_t stream) {
  return args.kv_dtype == DType::kF8E4M3 ? LaunchDim<true>(args, stream)
                                         : LaunchDim<false>(args, stream);
}

}  // namespace tessera::kernels::cuda
