#include <cuda_fp8.h>

#include "kernels/cuda/linear/gemm_kernels.h"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnit = 8;          // elements that a thread converts at once: 16 bytes of bf16
constexpr int kRowsOfThread = 4;  // independent loads in flight
constexpr float kE4m3Max = 448.0f;
constexpr float kSmallestAmax = 1e-36f;

unsigned BlocksFor(int64_t count, int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

// Eight bf16 as floats.
__device__ __forceinline__ void Widen(uint4 packed, float (&value)[kUnit]) {
  const unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    value[2 * i] = __uint_as_float(words[i] << 16);
    value[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

__device__ __forceinline__ float UnitAmax(const float (&value)[kUnit]) {
  float amax = 0;
#pragma unroll
  for (int i = 0; i < kUnit; ++i) amax = fmaxf(amax, fabsf(value[i]));
  return amax;
}

__device__ __forceinline__ uint2 EncodeUnit(const float (&value)[kUnit], float inverse) {
  unsigned pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    pairs[i] = __nv_cvt_float2_to_fp8x2(
        make_float2(value[2 * i] * inverse, value[2 * i + 1] * inverse), __NV_SATFINITE, __NV_E4M3);
  }
  return {pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16};
}

__device__ __forceinline__ float InverseScale(float amax) {
  return amax < kSmallestAmax ? 0.0f : kE4m3Max / amax;
}
__device__ __forceinline__ float ScaleOf(float amax) {
  return amax < kSmallestAmax ? 0.0f : amax / kE4m3Max;
}

// One block a row.
__global__ void __launch_bounds__(kThreads) QuantizeE4m3RowsKernel(const QuantizeE4m3Args args) {
  __shared__ float warp_amax[kThreads / 32];
  const int row = blockIdx.x;
  const bool inside = row < args.rows;
  const auto* x = reinterpret_cast<const uint4*>(args.x + static_cast<int64_t>(row) * args.in);
  auto* codes = reinterpret_cast<uint2*>(args.codes + static_cast<int64_t>(row) * args.in);
  const int units = args.in / kUnit;
  float value[kUnit];
  float amax = 0;
  for (int unit = threadIdx.x; inside && unit < units; unit += kThreads) {
    Widen(x[unit], value);
    amax = fmaxf(amax, UnitAmax(value));
  }
  amax = WarpMax(amax);
  if (LaneId() == 0) warp_amax[threadIdx.x / 32] = amax;
  __syncthreads();
  amax = WarpMax(warp_amax[threadIdx.x % (kThreads / 32)]);
  if (threadIdx.x == 0) args.scales[row] = ScaleOf(amax);
  const float inverse = InverseScale(amax);
  for (int unit = threadIdx.x; unit < units; unit += kThreads) {
    Widen(inside ? x[unit] : uint4{0, 0, 0, 0}, value);
    codes[unit] = EncodeUnit(value, inverse);
  }
}

// Sixteen threads a group.
__global__ void __launch_bounds__(kThreads) QuantizeE4m3GroupsKernel(const QuantizeE4m3Args args) {
  const int row = blockIdx.x;
  const int column = (blockIdx.y * kThreads + threadIdx.x) * kUnit;
  const int64_t offset = static_cast<int64_t>(row) * args.in + column;
  uint4 packed = {0, 0, 0, 0};
  if (row < args.rows && column < args.in) {
    packed = *reinterpret_cast<const uint4*>(args.x + offset);
  }
  float value[kUnit];
  Widen(packed, value);
  float amax = UnitAmax(value);
#pragma unroll
  for (int distance = 8; distance > 0; distance /= 2) {
    amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, distance));
  }
  if (column >= args.in) return;
  *reinterpret_cast<uint2*>(args.codes + offset) = EncodeUnit(value, InverseScale(amax));
  if (column % 128 == 0) {
    args.scales[static_cast<int64_t>(column / 128) * args.padded_rows + row] = ScaleOf(amax);
  }
}

__device__ __forceinline__ void Store(float* y, float value) { *y = value; }
__device__ __forceinline__ void Store(__nv_bfloat16* y, float value) {
  *y = __float2bfloat16_rn(value);
}

template <typename Y, bool kAdd>
__global__ void __launch_bounds__(kThreads) FinishKernel(const FinishArgs args, Y* y) {
  const int64_t row = blockIdx.x;
  Y* y_row = y + (args.y_rows == nullptr ? row : args.y_rows[row]) * args.y_stride;
#pragma unroll
  for (int i = 0; i < kRowsOfThread; ++i) {
    const int column = (blockIdx.y * kRowsOfThread + i) * kThreads + threadIdx.x;
    if (column >= args.out) return;
    float value = args.product == nullptr ? 0.0f : args.product[row * args.product_stride + column];
    if (args.bias != nullptr) value += args.bias[column];
    if (args.addend != nullptr) {
      value += __bfloat162float(args.addend[row * args.addend_stride + column]);
    }
    if constexpr (kAdd) value += y_row[column];
    Store(y_row + column, value);
  }
}

__global__ void FloatToBf16Kernel(const float* from, __nv_bfloat16* to, int count) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < count) to[i] = __float2bfloat16_rn(from[i]);
}

__global__ void PadColumnsKernel(const float* from, float* to, int rows, int columns, int stride) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= rows * stride) return;
  const int column = i % stride;
  to[i] = column < columns ? from[static_cast<int64_t>(i / stride) * columns + column] : 0.0f;
}

// splitmix64's finaliser.
__device__ __forceinline__ uint64_t Mix(uint64_t z) {
  z = (z + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// Four values from -2 to 2, evenly spread.
__device__ __forceinline__ uint32_t FourE4m3(uint64_t bits) {
  uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float value =
        static_cast<float>(static_cast<int>(bits >> (16 * i) & 0xffff) - 32768) / 16384.0f;
    codes |= uint32_t{__nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3)} << (8 * i);
  }
  return codes;
}

__global__ void FillTrialKernel(uint32_t* to, size_t words, size_t period, TrialFormat format) {
  const size_t step = static_cast<size_t>(gridDim.x) * kThreads;
  for (size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x; i < words; i += step) {
    const uint64_t bits = Mix(i % period);
    const float low = static_cast<float>(static_cast<int>(bits & 0xffff) - 32768) / 16384.0f;
    const float high = static_cast<float>(static_cast<int>(bits >> 16 & 0xffff) - 32768) / 16384.0f;
    if (format == TrialFormat::kBf16) {
      to[i] = PackBf16(low, high);
    } else if (format == TrialFormat::kE4m3) {
      to[i] = FourE4m3(bits);
    } else {
      to[i] = __float_as_uint(1.0f + fabsf(low));
    }
  }
}

__global__ void DelayKernel(int nanoseconds) {
  const uint64_t begin = GlobalNanoseconds();
  while (GlobalNanoseconds() - begin < static_cast<uint64_t>(nanoseconds)) continue;
}

__global__ void CountDifferencesKernel(const uint16_t* d, const uint16_t* reference, int period,
                                       int words, uint32_t* count) {
  const int64_t row = blockIdx.x;
  uint32_t different = 0;
  for (int i = threadIdx.x; i < words; i += kThreads) {
    different += d[row * words + i] != reference[row % period * words + i];
  }
  if (different != 0) atomicAdd(count, different);
}

template <typename Y, bool kAdd>
cudaError_t Finish(const FinishArgs& args, Y* y, cudaStream_t stream) {
  const dim3 grid(args.rows, BlocksFor(args.out, kThreads * kRowsOfThread));
  FinishKernel<Y, kAdd><<<grid, kThreads, 0, stream>>>(args, y);
  return cudaGetLastError();
}

}  // namespace

cudaError_t LaunchQuantizeE4m3Rows(const QuantizeE4m3Args& args, cudaStream_t stream) {
  QuantizeE4m3RowsKernel<<<args.padded_rows, kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t LaunchQuantizeE4m3Groups(const QuantizeE4m3Args& args, cudaStream_t stream) {
  const dim3 grid(args.padded_rows, BlocksFor(args.in, kThreads * kUnit));
  QuantizeE4m3GroupsKernel<<<grid, kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t LaunchFinishStore(const FinishArgs& args, __nv_bfloat16* y, cudaStream_t stream) {
  return Finish<__nv_bfloat16, false>(args, y, stream);
}
cudaError_t LaunchFinishStore(const FinishArgs& args, float* y, cudaStream_t stream) {
  return Finish<float, false>(args, y, stream);
}
cudaError_t LaunchFinishAdd(const FinishArgs& args, float* y, cudaStream_t stream) {
  return Finish<float, true>(args, y, stream);
}

cudaError_t LaunchFloatToBf16(const float* from, __nv_bfloat16* to, int32_t count,
                              cudaStream_t stream) {
  FloatToBf16Kernel<<<BlocksFor(count, kThreads), kThreads, 0, stream>>>(from, to, count);
  return cudaGetLastError();
}

cudaError_t LaunchPadColumns(const float* from, float* to, int32_t rows, int32_t columns,
                             int32_t stride, cudaStream_t stream) {
  PadColumnsKernel<<<BlocksFor(int64_t{rows} * stride, kThreads), kThreads, 0, stream>>>(
      from, to, rows, columns, stride);
  return cudaGetLastError();
}

cudaError_t LaunchFillTrial(void* to, size_t bytes, size_t period_bytes, TrialFormat format,
                            cudaStream_t stream) {
  FillTrialKernel<<<1024, kThreads, 0, stream>>>(static_cast<uint32_t*>(to), bytes / 4,
                                                 period_bytes / 4, format);
  return cudaGetLastError();
}

cudaError_t LaunchDelay(int32_t nanoseconds, cudaStream_t stream) {
  DelayKernel<<<1, 1, 0, stream>>>(nanoseconds);
  return cudaGetLastError();
}

cudaError_t LaunchCountDifferences(const uint16_t* d, const uint16_t* reference, int32_t rows,
                                   int32_t period, int32_t words, uint32_t* count,
                                   cudaStream_t stream) {
  CountDifferencesKernel<<<rows, kThreads, 0, stream>>>(d, reference, period, words, count);
  return cudaGetLastError();
}

}  // namespace tessera::kernels::cuda
