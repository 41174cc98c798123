// How x gets into the registers of skinny_few.cuh: by way of shared memory, which the whole block
// fills at once (and normalises), or each warp its own from device memory.
// A lane has 16 columns of 64, 16 (lane % 4) ..., of token lane / 4.
//
// e4m3 and int4 codes become float16 in one instruction and bfloat16 in more: with them a unit of x
// is float16 too, less a power of two that its largest element leaves near 2^15. That is exact but
// for elements 2^28 times smaller than the largest, whose error is below 2^-39 of it (of int4,
// whose every second pair is 2^4 less: 2^24, 2^-35).
#pragma once

#include <cstdint>

#include "kernels/cuda/linear/skinny_few_loader.cuh"

namespace tessera::kernels::cuda {

// A lane's 16 columns, two a word.
struct FewColumns {
  uint32_t word[8];
};

// The exponent, as float32 has it, of a unit's largest element: `word` has two of its magnitudes or
// more, in bfloat16.
__device__ __forceinline__ uint32_t FewExponent(uint32_t word) {
  return max(max(word & 0x7fffu, word >> 16 & 0x7fffu) >> 7, 30u);
}
__device__ __forceinline__ float FewScale(uint32_t exponent) {
  return __uint_as_float((exponent - 14) << 23);
}
// Two elements of bfloat16 in float16, divided by FewScale and times `factor`.
__device__ __forceinline__ uint32_t FewHalves(uint32_t word, uint32_t exponent, float factor) {
  const float inverse = __uint_as_float((268 - exponent) << 23) * factor;
  const float low = __uint_as_float(word << 16) * inverse;
  const float high = __uint_as_float(word & 0xffff0000u) * inverse;
  const __half2 halves = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&halves);
}
// The larger magnitudes of two pairs.
__device__ __forceinline__ uint32_t LargerPair(uint32_t a, uint32_t b) {
  return AsBits(__hmax2(__habs2(AsBf162(a)), __habs2(AsBf162(b))));
}

template <typename Few>
class FewInput {
  using Format = typename Few::Format;
  static constexpr int kHalves = Format::kHalves;

 public:
  __device__ __forceinline__ FewInput(const SkinnyPlan& plan, FewShared<Few>& shared)
      : plan_(plan), shared_(shared), token_(LaneId() >> 2) {
    if constexpr (Few::kX == FewX::kNormed) {
      // Warms the cache, while earlier kernels run.
      for (int column = threadIdx.x * kItem; column < plan.in; column += kStep) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(plan.norm_weight + column));
      }
    }
  }
  // Before the first Fetch: waits for earlier kernels, and fills shared memory.
  __device__ __forceinline__ void Begin() {
    WaitForPrior();
    if constexpr (Few::kKeepsX) {
#pragma unroll 1
      for (int row = 0; row < plan_.rows; ++row) {
        if constexpr (Few::kX == FewX::kNormed) {
          Normalise(row);
        } else {
          Copy(row);
        }
      }
      __syncthreads();
    }
  }
  // Asks for the columns of `unit`.
  __device__ __forceinline__ void Fetch(int unit) {
    if constexpr (!Few::kKeepsX) {
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        const int column = (unit * kHalves + half) * 64;
        next_[half] = {};
        if (token_ >= plan_.rows || column >= plan_.in) continue;
        Read(reinterpret_cast<const uint8_t*>(plan_.x + int64_t{token_} * plan_.in + column), half,
             [](const uint4* from) { return __ldcg(from); });
      }
    }
  }
  // The columns of `unit`, which was asked for last, and what the sums of this lane's tokens, 2
  // (lane % 4) + {0, 1}, are multiplied by.
  __device__ __forceinline__ void Take(int unit, FewColumns (&columns)[kHalves],
                                       float (&scale)[2]) {
    if constexpr (Few::kKeepsX) {
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        const int column = (unit * kHalves + half) * 64;
        next_[half] = {};
        if (token_ >= plan_.rows || column >= plan_.in) continue;
        Read(Rows() + token_ * FewInputStride(plan_.in) + column * 2, half,
             [](const uint4* from) { return *from; });
      }
    } else if constexpr (Format::kHalf) {
      Halve();
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      scale[e] = 1;
      if constexpr (!Format::kHalf) continue;
      const int token = 2 * (LaneId() & 3) + e;
      if constexpr (!Few::kKeepsX) {
        scale[e] = __shfl_sync(0xffffffffu, own_scale_, token * 4);
      } else if (token < plan_.rows) {
        scale[e] = shared_.unit_scale[token * plan_.tile_units + unit];
      }
    }
#pragma unroll
    for (int half = 0; half < kHalves; ++half) columns[half] = next_[half];
  }
  // What the sums of `token` are multiplied by at last, behind the block's first barrier.
  static __device__ __forceinline__ float Factor(const SkinnyPlan& plan,
                                                 const FewShared<Few>& shared, int token) {
    if constexpr (Few::kX == FewX::kNormed) {
      float squares = 0;
#pragma unroll
      for (int warp = 0; warp < kFewWarps; ++warp) squares += shared.squares[warp][token];
      return rsqrtf(squares / static_cast<float>(plan.in) + plan.epsilon);
    } else {
      return 1.0f;
    }
  }

 private:
  static constexpr int kItem = 8;                       // columns that a thread brings at a time
  static constexpr int kStep = kItem * kFewWarps * 32;  // of the block

  __device__ __forceinline__ uint8_t* Rows() const {
    return reinterpret_cast<uint8_t*>(&shared_) + kFewHeadBytes;
  }
  template <typename Load>
  __device__ __forceinline__ void Read(const uint8_t* columns, int half, Load load) {
    const auto* from = reinterpret_cast<const uint4*>(columns + (LaneId() & 3) * 32);
    const uint4 v = load(from), w = load(from + 1);
    next_[half] = {{v.x, v.y, v.z, v.w, w.x, w.y, w.z, w.w}};
  }
  // Turns the unit that was fetched into float16.
  __device__ __forceinline__ void Halve() {
    uint32_t most = 0;
#pragma unroll
    for (int i = 0; i < 8 * kHalves; ++i) most = LargerPair(most, next_[i / 8].word[i % 8]);
    most = LargerPair(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = LargerPair(most, __shfl_xor_sync(0xffffffffu, most, 2));
    const uint32_t exponent = FewExponent(most);
    own_scale_ = FewScale(exponent) / Format::kProducts;
#pragma unroll
    for (int i = 0; i < 8 * kHalves; ++i) {
      next_[i / 8].word[i % 8] =
          FewHalves(next_[i / 8].word[i % 8], exponent, i % 2 == 0 ? 1.0f : Format::kSecondHalf);
    }
  }
  // Leaves eight columns in shared memory; the whole warp comes here, with those of sixteen units'
  // parts that follow one another.
  __device__ __forceinline__ void Keep(int row, int column, uint4 v) {
    if constexpr (Format::kHalf) {
      uint32_t most = LargerPair(LargerPair(v.x, v.y), LargerPair(v.z, v.w));
#pragma unroll
      for (int offset = 1; offset < 16; offset *= 2) {
        most = LargerPair(most, __shfl_xor_sync(0xffffffffu, most, offset));
      }
      const uint32_t exponent = FewExponent(most);
      v = make_uint4(FewHalves(v.x, exponent, 1.0f), FewHalves(v.y, exponent, Format::kSecondHalf),
                     FewHalves(v.z, exponent, 1.0f), FewHalves(v.w, exponent, Format::kSecondHalf));
      if (column < plan_.in && column % 128 == 0) {
        shared_.unit_scale[row * plan_.tile_units + column / 128] =
            FewScale(exponent) / Format::kProducts;
      }
    }
    if (column >= plan_.in) return;
    *reinterpret_cast<uint4*>(Rows() + row * FewInputStride(plan_.in) + column * 2) = v;
  }
  // A residual row times the gains, and the sum of its squares. Written by kernels before: not
  // through L1, which may hold what the lines were.
  __device__ __forceinline__ void Normalise(int row) {
    const int64_t from = plan_.x_rows == nullptr ? row : __ldcg(plan_.x_rows + row);
    const float* residual = plan_.residual + from * plan_.in;
    float squares = 0;
#pragma unroll 2
    for (int first = 0; first < plan_.in; first += kStep) {
      const int column = first + static_cast<int>(threadIdx.x) * kItem;
      float4 v = {}, w = {}, a = {}, b = {};
      if (column < plan_.in) {
        const auto* values = reinterpret_cast<const float4*>(residual + column);
        const auto* gains = reinterpret_cast<const float4*>(plan_.norm_weight + column);
        v = __ldcg(values);
        w = __ldcg(values + 1);
        a = __ldg(gains);
        b = __ldg(gains + 1);
      }
      squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
      squares += w.x * w.x + w.y * w.y + w.z * w.z + w.w * w.w;
      Keep(row, column,
           make_uint4(PackBf16(v.x * a.x, v.y * a.y), PackBf16(v.z * a.z, v.w * a.w),
                      PackBf16(w.x * b.x, w.y * b.y), PackBf16(w.z * b.z, w.w * b.w)));
    }
    squares = WarpSum(squares);
    if (LaneId() == 0) shared_.squares[threadIdx.x >> 5][row] = squares;
  }
  __device__ __forceinline__ void Copy(int row) {
#pragma unroll 4
    for (int first = 0; first < plan_.in; first += kStep) {
      const int column = first + static_cast<int>(threadIdx.x) * kItem;
      uint4 v = {};
      if (column < plan_.in) {
        v = __ldcg(reinterpret_cast<const uint4*>(plan_.x + int64_t{row} * plan_.in + column));
      }
      Keep(row, column, v);
    }
  }

  const SkinnyPlan& plan_;
  FewShared<Few>& shared_;
  const int token_;
  FewColumns next_[kHalves];
  float own_scale_ = 1;  // of the unit that was fetched, for this lane's token
};

}  // namespace tessera::kernels::cuda
