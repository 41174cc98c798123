#include <cuda_fp8.h>

#include <algorithm>

#include "kernels/cuda/attention/rope_append.h"
#include "kernels/cuda/attention/rotation.cuh"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kMaxThreads = 512;

// kVector neighbouring bf16 elements.
template <int kVector>
struct alignas(kVector * 2) Bf16Vector {
  __nv_bfloat16 element[kVector];
};
template <int kVector>
struct alignas(kVector) E4m3Vector {
  uint8_t element[kVector];
};

template <int kVector>
__device__ __forceinline__ void Load(const __nv_bfloat16* from, float (&to)[kVector]) {
  const auto bits = *reinterpret_cast<const Bf16Vector<kVector>*>(from);
#pragma unroll
  for (int i = 0; i < kVector; ++i) to[i] = __bfloat162float(bits.element[i]);
}

template <int kVector>
__device__ __forceinline__ void Store(__nv_bfloat16* to, const float (&from)[kVector]) {
  Bf16Vector<kVector> bits;
#pragma unroll
  for (int i = 0; i < kVector; ++i) bits.element[i] = __float2bfloat16_rn(from[i]);
  *reinterpret_cast<Bf16Vector<kVector>*>(to) = bits;
}

template <int kCount>
__device__ __forceinline__ void LoadAngles(const float* from, float (&to)[kCount]) {
  if constexpr (kCount % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      to[i] = four.x;
      to[i + 1] = four.y;
      to[i + 2] = four.z;
      to[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = from[i];
  }
}

// Where one row of one head goes: the query in place, or a token of a plane.
struct Target {
  __nv_bfloat16* row = nullptr;
  std::byte* plane = nullptr;
  uint32_t token = 0;
  uint32_t row_bytes = 0;
};

template <bool kE4m3, int kVector>
__device__ __forceinline__ void Put(const Target& target, int dim, const float (&value)[kVector]) {
  if (target.row != nullptr) {
    Store<kVector>(target.row + dim, value);
    return;
  }
  if (target.plane == nullptr) return;
  constexpr uint32_t kElementBytes = kE4m3 ? 1 : 2;
  std::byte* at =
      target.plane +
      PlaneOffset(target.token, static_cast<uint32_t>(dim) * kElementBytes, target.row_bytes);
  if constexpr (kE4m3) {
    E4m3Vector<kVector> bits;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      bits.element[i] = __nv_cvt_float_to_fp8(value[i], __NV_SATFINITE, __NV_E4M3);
    }
    *reinterpret_cast<E4m3Vector<kVector>*>(at) = bits;
  } else {
    Store<kVector>(reinterpret_cast<__nv_bfloat16*>(at), value);
  }
}

// Rotates the unit's elements: 2 kVector of them in style kHalf, kVector in style kInterleaved.
template <bool kE4m3, RopeStyle kStyle, int kVector>
__device__ __forceinline__ void Turn(const __nv_bfloat16* source, const Target& target, int unit,
                                     int half, const float* cosine, const float* sine) {
  if constexpr (kStyle == RopeStyle::kHalf) {
    const int dim = unit * kVector;
    float x[kVector], y[kVector], c[kVector], s[kVector];
    Load<kVector>(source + dim, x);
    Load<kVector>(source + dim + half, y);
    LoadAngles<kVector>(cosine + dim, c);
    LoadAngles<kVector>(sine + dim, s);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float2 turned = RotatePair(x[i], y[i], c[i], s[i]);
      x[i] = turned.x;
      y[i] = turned.y;
    }
    Put<kE4m3, kVector>(target, dim, x);
    Put<kE4m3, kVector>(target, dim + half, y);
  } else {
    const int dim = unit * kVector;
    float x[kVector], c[kVector / 2], s[kVector / 2];
    Load<kVector>(source + dim, x);
    LoadAngles<kVector / 2>(cosine + dim / 2, c);
    LoadAngles<kVector / 2>(sine + dim / 2, s);
#pragma unroll
    for (int i = 0; i < kVector; i += 2) {
      const float2 turned = RotatePair(x[i], x[i + 1], c[i / 2], s[i / 2]);
      x[i] = turned.x;
      x[i + 1] = turned.y;
    }
    Put<kE4m3, kVector>(target, dim, x);
  }
}

template <bool kE4m3, RopeStyle kStyle, int kVector>
__global__ void __launch_bounds__(kMaxThreads)
    RopeAppendKernel(const __grid_constant__ RopeAppendArgs args) {
  LetNextStart();
  WaitForPrior();
  const int64_t row = blockIdx.x;
  const int turning =
      (kStyle == RopeStyle::kHalf ? args.rotary_dim / 2 : args.rotary_dim) / kVector;
  const int copied = (args.head_dim - args.rotary_dim) / kVector;
  const int key_units = turning + copied;
  const int q_units = args.q_heads * turning;
  const int k_units = args.kv_heads * key_units;
  const int v_units = args.kv_heads * (args.head_dim / kVector);
  const int64_t rotary_row = args.rotary_rows == nullptr ? row : args.rotary_rows[row];
  const float* cosine = args.cosine + rotary_row * (args.rotary_dim / 2);
  const float* sine = args.sine + rotary_row * (args.rotary_dim / 2);
  const PageId page = args.page[row];
  constexpr uint32_t kElementBytes = kE4m3 ? 1 : 2;
  Target cache;
  cache.token = args.slot[row];
  cache.row_bytes = static_cast<uint32_t>(args.head_dim) * kElementBytes;
  std::byte* base =
      page.value == PageId::kInvalid ? nullptr : args.arena + uint64_t{page.value} * kPageUnitBytes;
  const int end = base == nullptr ? q_units : q_units + k_units + v_units;
  for (int i = static_cast<int>(threadIdx.x); i < end; i += static_cast<int>(blockDim.x)) {
    if (i < q_units) {
      Target target;
      target.row = args.q + row * args.q_stride + i / turning * args.head_dim;
      Turn<kE4m3, kStyle, kVector>(target.row, target, i % turning, args.rotary_dim / 2, cosine,
                                   sine);
      continue;
    }
    const bool is_key = i < q_units + k_units;
    const int inside = is_key ? i - q_units : i - q_units - k_units;
    const int units = is_key ? key_units : args.head_dim / kVector;
    const int head = inside / units;
    const int unit = inside % units;
    const uint32_t plane_bytes = PlaneBytes(args.head_dim, kElementBytes);
    cache.plane =
        base + HeadOffset(head, args.head_dim, kElementBytes) + (is_key ? 0 : plane_bytes);
    const __nv_bfloat16* source =
        (is_key ? args.k + row * args.k_stride : args.v + row * args.v_stride) +
        head * args.head_dim;
    if (is_key && unit < turning) {
      Turn<kE4m3, kStyle, kVector>(source, cache, unit, args.rotary_dim / 2, cosine, sine);
      continue;
    }
    const int dim = is_key ? args.rotary_dim + (unit - turning) * kVector : unit * kVector;
    float value[kVector];
    Load<kVector>(source + dim, value);
    Put<kE4m3, kVector>(cache, dim, value);
  }
}

template <bool kE4m3, RopeStyle kStyle, int kVector>
cudaError_t Launch(const RopeAppendArgs& args, cudaStream_t stream) {
  const int units = (args.q_heads + 2 * args.kv_heads) * args.head_dim / kVector;
  const int threads = std::clamp((units + 31) / 32 * 32, 64, kMaxThreads);
  return LaunchDependent(RopeAppendKernel<kE4m3, kStyle, kVector>,
                         dim3(static_cast<unsigned>(args.rows)),
                         dim3(static_cast<unsigned>(threads)), 0, 1, stream, args);
}

template <bool kE4m3, RopeStyle kStyle>
cudaError_t LaunchStyle(const RopeAppendArgs& args, cudaStream_t stream) {
  const int run = kStyle == RopeStyle::kHalf ? args.rotary_dim / 2 : args.rotary_dim;
  return run % 8 == 0 ? Launch<kE4m3, kStyle, 8>(args, stream)
                      : Launch<kE4m3, kStyle, 2>(args, stream);
}

template <bool kE4m3>
cudaError_t LaunchType(const RopeAppendArgs& args, cudaStream_t stream) {
  return args.style == RopeStyle::kHalf ? LaunchStyle<kE4m3, RopeStyle::kHalf>(args, stream)
                                        : LaunchStyle<kE4m3, RopeStyle::kInterleaved>(args, stream);
}

}  // namespace

std::string MissingRopeAppend(const RopeAppendArgs& args) {
  if (args.head_dim < 16 || args.head_dim > 256 || args.head_dim % 16 != 0) {
    return "head_dim " + std::to_string(args.head_dim) + " (a multiple of 16 up to 256)";
  }
  if (args.rotary_dim < 0 || args.rotary_dim > args.head_dim || args.rotary_dim % 4 != 0) {
    return "rotary_dim " + std::to_string(args.rotary_dim) + " (a multiple of 4 up to head_dim)";
  }
  if (args.kv_type != DType::kBF16 && args.kv_type != DType::kF8E4M3) {
    return "pages other than bf16 and e4m3";
  }
  if (args.q_stride % 8 != 0 || args.k_stride % 8 != 0 || args.v_stride % 8 != 0) {
    return "strides that are no multiple of 8";
  }
  return "";
}

cudaError_t LaunchRopeAppend(const RopeAppendArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  return args.kv_type == DType::kBF16 ? LaunchType<false>(args, stream)
                                      : LaunchType<true>(args, stream);
}

}  // namespace tessera::kernels::cuda
