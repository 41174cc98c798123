// Weights with planes to bf16.
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "kernels/cuda/linear/gemm.h"
#include "kernels/cuda/linear/gemm_kernels.h"
#include "kernels/cuda/linear/skinny_int4.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnit = 8;          // elements that a thread converts at once: 16 bytes of bf16
constexpr int kRowsOfThread = 4;  // independent loads in flight

unsigned BlocksFor(int64_t count, int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

template <DType kType>
constexpr bool kIsInt4 = kType >= DType::kI4G128;
template <DType kType>
constexpr bool kHasZeros = kType == DType::kI4G128Zero || kType == DType::kI4G64Zero;
template <DType kType>
constexpr int kGroupOf = static_cast<int>(ScaleGroup(kType));

struct ScaleAndZero {
  float scale;
  float zero;
};

// 2^23 + code is the float with the code in its lowest bits: no conversion needed.
__device__ __forceinline__ float CodeMinusZero(uint32_t code, float zero) {
  return __uint_as_float(0x4b000000u | code) - (8388608.0f + zero);
}

// Eight neighbouring columns of the rows that one thread converts, in canonical planes.
template <DType kType>
class CanonicalColumns {
 public:
  using Codes = uint2;

  __device__ __forceinline__ CanonicalColumns(const DequantizeArgs& args,
                                              const WeightPlanes& planes, int64_t /*first_row*/,
                                              int column)
      : args_(args), planes_(planes), column_(column) {}

  // An int4 code is a nibble, lowest first.
  __device__ __forceinline__ Codes Fetch(int64_t row) const {
    const int64_t index = row * args_.in + column_;
    if constexpr (kIsInt4<kType>) {
      return {__ldg(reinterpret_cast<const unsigned*>(args_.weight + index / 2)), 0};
    } else {
      return __ldg(reinterpret_cast<const uint2*>(args_.weight + index));
    }
  }

  __device__ __forceinline__ ScaleAndZero Scale(int64_t row) const {
    const std::byte* scales = args_.weight + planes_.scales_offset;
    if constexpr (kIsInt4<kType>) {
      const int64_t index = row * (args_.in / kGroupOf<kType>)+column_ / kGroupOf<kType>;
      float zero = 8.0f;
      if constexpr (kHasZeros<kType>) {
        zero = static_cast<float>(static_cast<uint8_t>(args_.weight[planes_.zeros_offset + index]));
      }
      return {__half2float(reinterpret_cast<const __half*>(scales)[index]), zero};
    } else {
      int64_t index = row;
      if constexpr (kType == DType::kF8Block128) {
        index = row / 128 * ((args_.in + 127) / 128) + column_ / 128;
      }
      return {reinterpret_cast<const float*>(scales)[index], 0.0f};
    }
  }

  // Code minus zero point, exactly.
  __device__ __forceinline__ void Decode(Codes codes, float zero, float (&value)[kUnit]) const {
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      const unsigned byte = (i < 4 ? codes.x : codes.y) >> (8 * (i % 4)) & 255u;
      if constexpr (kIsInt4<kType>) {
        value[i] = CodeMinusZero(codes.x >> (4 * i) & 15u, zero);
      } else if constexpr (kType == DType::kI8Channel) {
        value[i] = static_cast<float>(static_cast<int8_t>(byte));
      } else {
        value[i] = __half2float(
            __half(__nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(byte), __NV_E4M3)));
      }
    }
  }

 private:
  const DequantizeArgs& args_;
  const WeightPlanes& planes_;
  const int column_;
};

// The same of a packed int4 weight. A thread's rows lie in one record: their number divides 16.
template <DType kType>
class PackedColumns {
 public:
  using Codes = uint32_t;

  __device__ __forceinline__ PackedColumns(const DequantizeArgs& args,
                                           const WeightPlanes& /*planes*/, int64_t first_row,
                                           int column) {
    const auto row = static_cast<uint32_t>(first_row);
    constexpr Int4Record kRecord = Int4RecordOf(kGroupOf<kType>, kHasZeros<kType>);
    const std::byte* start =
        args.weight + Int4RecordOffset(row, column, args.out, args.in, kRecord.bytes);
    codes_ = start + Int4PlaceOf(0, column).byte;
    const uint32_t group = column % kInt4RecordColumns / kGroupOf<kType> * kInt4RecordRows;
    scales_ = start + kRecord.scales + group * 2;
    zeros_ = start + kRecord.zeros + group;
  }

  __device__ __forceinline__ Codes Fetch(int64_t row) const {
    return __ldg(reinterpret_cast<const uint32_t*>(codes_ + static_cast<uint32_t>(row) %
                                                                kInt4RecordRows * 32));
  }

  __device__ __forceinline__ ScaleAndZero Scale(int64_t row) const {
    const uint32_t in_record = static_cast<uint32_t>(row) % kInt4RecordRows;
    float zero = 8.0f;
    if constexpr (kHasZeros<kType>) {
      zero = static_cast<float>(static_cast<uint8_t>(zeros_[in_record]));
    }
    return {__half2float(reinterpret_cast<const __half*>(scales_)[in_record]), zero};
  }

  __device__ __forceinline__ void Decode(Codes codes, float zero, float (&value)[kUnit]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t pair = __funnelshift_r(codes, codes, Int4PlaceOf(0, 2 * i).bit);
      value[2 * i] = CodeMinusZero(pair & 15u, zero);
      value[2 * i + 1] = CodeMinusZero(pair >> 16 & 15u, zero);
    }
  }

 private:
  const std::byte* codes_;
  const std::byte* scales_;
  const std::byte* zeros_;
};

template <typename Columns>
__global__ void __launch_bounds__(kThreads)
    DequantizeKernel(const DequantizeArgs args, const WeightPlanes planes) {
  const int column = (blockIdx.y * kThreads + threadIdx.x) * kUnit;
  if (column >= args.in) return;
  const int first = blockIdx.x * kRowsOfThread;
  const Columns columns(args, planes, args.out_begin + first, column);
  typename Columns::Codes codes[kRowsOfThread];
  ScaleAndZero scale[kRowsOfThread];
#pragma unroll
  for (int i = 0; i < kRowsOfThread; ++i) {
    if (first + i >= args.out_count) break;
    codes[i] = columns.Fetch(args.out_begin + first + i);
    scale[i] = columns.Scale(args.out_begin + first + i);
  }
#pragma unroll
  for (int i = 0; i < kRowsOfThread; ++i) {
    if (first + i >= args.out_count) break;
    float value[kUnit];
    columns.Decode(codes[i], scale[i].zero, value);
    uint4 packed;
    packed.x = PackBf16(value[0] * scale[i].scale, value[1] * scale[i].scale);
    packed.y = PackBf16(value[2] * scale[i].scale, value[3] * scale[i].scale);
    packed.z = PackBf16(value[4] * scale[i].scale, value[5] * scale[i].scale);
    packed.w = PackBf16(value[6] * scale[i].scale, value[7] * scale[i].scale);
    *reinterpret_cast<uint4*>(args.w + static_cast<int64_t>(first + i) * args.in + column) = packed;
  }
}

template <DType kType, typename Columns = CanonicalColumns<kType>>
cudaError_t DequantizeOf(const DequantizeArgs& args, cudaStream_t stream) {
  const WeightPlanes planes = PlanesOf(args.dtype, args.out, args.in);
  const dim3 grid(BlocksFor(args.out_count, kRowsOfThread), BlocksFor(args.in, kThreads * kUnit));
  DequantizeKernel<Columns><<<grid, kThreads, 0, stream>>>(args, planes);
  return cudaGetLastError();
}
template <DType kType>
cudaError_t DequantizeInt4(const DequantizeArgs& args, cudaStream_t stream) {
  return args.layout == Int4Layout::kPacked
             ? DequantizeOf<kType, PackedColumns<kType>>(args, stream)
             : DequantizeOf<kType>(args, stream);
}

}  // namespace

cudaError_t LaunchDequantize(const DequantizeArgs& args, cudaStream_t stream) {
  switch (args.dtype) {
    case DType::kF8Channel:
      return DequantizeOf<DType::kF8Channel>(args, stream);
    case DType::kF8Block128:
      return DequantizeOf<DType::kF8Block128>(args, stream);
    case DType::kI8Channel:
      return DequantizeOf<DType::kI8Channel>(args, stream);
    case DType::kI4G128:
      return DequantizeInt4<DType::kI4G128>(args, stream);
    case DType::kI4G64:
      return DequantizeInt4<DType::kI4G64>(args, stream);
    case DType::kI4G128Zero:
      return DequantizeInt4<DType::kI4G128Zero>(args, stream);
    case DType::kI4G64Zero:
      return DequantizeInt4<DType::kI4G64Zero>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace tessera::kernels::cuda
