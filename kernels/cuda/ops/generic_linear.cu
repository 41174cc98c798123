#include <algorithm>

#include "kernels/cuda/ops/generic_linear.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops/weight_decode.cuh"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kFewRows = 8;

__device__ __forceinline__ void Emit(const GenericLinearArgs& args, int row, int column,
                                     float acc) {
  if (args.bias != nullptr) acc += args.bias[column];
  if (args.addend != nullptr) {
    acc += __bfloat162float(args.addend[row * args.addend_stride + column]);
  }
  const int64_t to = args.y_rows != nullptr ? args.y_rows[row] : row;
  const int64_t at = to * args.y_stride + column;
  if (args.epilogue == GenericEpilogue::kStore) {
    static_cast<__nv_bfloat16*>(args.y)[at] = __float2bfloat16(acc);
  } else if (args.epilogue == GenericEpilogue::kStoreFloat) {
    static_cast<float*>(args.y)[at] = acc;
  } else {
    static_cast<float*>(args.y)[at] += acc;
  }
}

// Few rows: a warp reads kOuts rows of the weight once and multiplies all rows of x with them.
constexpr int kFewThreads = 128;
template <DType kType, int kRows>
struct FewShape {
  static constexpr int kOuts = kRows == 1 ? 2 : 4;
  static constexpr int kOutsPerBlock = kOuts * kFewThreads / 32;
};

template <int kOuts, int kRows>
__device__ __forceinline__ void MultiplyEight(const GenericLinearArgs& args, int k,
                                              const float (&w)[kOuts][8],
                                              float (&acc)[kOuts][kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = r < args.rows ? r : args.rows - 1;
    const uint4 raw = *reinterpret_cast<const uint4*>(args.x + row * args.x_stride + k);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 x = Bf16Pair(words[i]);
#pragma unroll
      for (int o = 0; o < kOuts; ++o) {
        acc[o][r] = fmaf(w[o][2 * i], x.x, acc[o][r]);
        acc[o][r] = fmaf(w[o][2 * i + 1], x.y, acc[o][r]);
      }
    }
  }
}

template <DType kType, int kRows>
__global__ void __launch_bounds__(kFewThreads)
    FewRowsKernel(const GenericLinearArgs args, const WeightView weight) {
  constexpr int kOuts = FewShape<kType, kRows>::kOuts;
  LetNextStart();
  WaitForPrior();
  const int warp = blockIdx.x * (kFewThreads / 32) + threadIdx.x / 32;
  const int first = warp * kOuts;
  if (first >= args.out) return;
  float acc[kOuts][kRows] = {};
#pragma unroll(kRows <= 2 ? 4 : 1)
  for (int k = 8 * LaneId(); k < args.in; k += 256) {
    float w[kOuts][8];
#pragma unroll
    for (int o = 0; o < kOuts; ++o) {
      DecodeWeight8<kType>(weight, min(first + o, args.out - 1), k, w[o]);
    }
    MultiplyEight<kOuts, kRows>(args, k, w, acc);
  }
#pragma unroll
  for (int o = 0; o < kOuts; ++o) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float sum = WarpSum(acc[o][r]);
      const bool mine = LaneId() == (o * kRows + r) % 32;
      if (mine && r < args.rows && first + o < args.out) Emit(args, r, first + o, sum);
    }
  }
}

// Many rows: blocks of 64 rows by 64 outputs, four warps of 32 by 32, steps of 32 along `in`.
constexpr int kTile = 64;
constexpr int kStep = 32;
constexpr int kPitch = kStep + 8;  // 80 bytes: eight rows of a matrix fall into distinct banks
constexpr int kManyThreads = 128;

struct ManyStage {
  __nv_bfloat16 x[kTile][kPitch];
  __nv_bfloat16 high[kTile][kPitch];
  __nv_bfloat16 low[kTile][kPitch];
};

// A thread's share of one step of the weight: two runs of eight.
template <DType kType>
class WeightShare {
 public:
  __device__ void Load(const GenericLinearArgs& args, const WeightView& weight, int first, int k) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int run = threadIdx.x + i * kManyThreads;
      const int column = k + run % 4 * 8;
      const int row = min(first + run / 4, args.out - 1);
      if (column < args.in) {
        DecodeWeight8<kType>(weight, row, column, v_[i]);
      } else {
#pragma unroll
        for (int j = 0; j < 8; ++j) v_[i][j] = 0;
      }
    }
  }

  __device__ void Store(ManyStage& stage) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int run = threadIdx.x + i * kManyThreads;
      uint32_t high[4], low[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) Split(v_[i][2 * j], v_[i][2 * j + 1], high[j], low[j]);
      const int at = run % 4 * 8;
      *reinterpret_cast<uint4*>(&stage.high[run / 4][at]) =
          make_uint4(high[0], high[1], high[2], high[3]);
      if constexpr (kType != DType::kBF16) {
        *reinterpret_cast<uint4*>(&stage.low[run / 4][at]) =
            make_uint4(low[0], low[1], low[2], low[3]);
      }
    }
  }

 private:
  // What is left of an infinity would be no number.
  static __device__ float Rest(float value, float high) {
    return isinf(high) ? 0.0f : value - high;
  }
  static __device__ void Split(float a, float b, uint32_t& high, uint32_t& low) {
    high = PackBf16(a, b);
    const float2 pair = Bf16Pair(high);
    low = PackBf16(Rest(a, pair.x), Rest(b, pair.y));
  }

  float v_[2][8];
};

__device__ __forceinline__ void LoadActivations(const GenericLinearArgs& args, ManyStage& stage,
                                                int first, int k) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int run = threadIdx.x + i * kManyThreads;
    const int column = k + run % 4 * 8;
    const int row = first + run / 4;
    const bool inside = row < args.rows && column < args.in;
    const __nv_bfloat16* from = args.x + (inside ? row * args.x_stride + column : 0);
    CopyAsync16(&stage.x[run / 4][run % 4 * 8], from, inside);
  }
  CopyAsyncCommit();
}

template <DType kType>
__device__ __forceinline__ void MultiplyStage(const ManyStage& stage, int row, int column,
                                              float (&acc)[2][4][4]) {
  const int lane = LaneId();
#pragma unroll
  for (int k = 0; k < kStep; k += 16) {
    uint32_t a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      LoadMatrix4(a[m], &stage.x[row + 16 * m + lane % 16][k + lane / 16 * 8]);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int b_row = column + 16 * n + lane / 16 * 8 + lane % 8;
      const int b_column = k + lane / 8 % 2 * 8;
      uint32_t high[4], low[4];
      LoadMatrix4(high, &stage.high[b_row][b_column]);
      if constexpr (kType != DType::kBF16) LoadMatrix4(low, &stage.low[b_row][b_column]);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if constexpr (kType != DType::kBF16) {
            MmaBf16(acc[m][2 * n + half], a[m], low[2 * half], low[2 * half + 1]);
          }
          MmaBf16(acc[m][2 * n + half], a[m], high[2 * half], high[2 * half + 1]);
        }
      }
    }
  }
}

template <DType kType>
__global__ void __launch_bounds__(kManyThreads)
    ManyRowsKernel(const GenericLinearArgs args, const WeightView weight) {
  __shared__ __align__(16) ManyStage stages[2];
  const int first_row = blockIdx.y * kTile;
  const int first_out = blockIdx.x * kTile;
  LetNextStart();
  WeightShare<kType> share;
  share.Load(args, weight, first_out, 0);
  WaitForPrior();
  LoadActivations(args, stages[0], first_row, 0);
  share.Store(stages[0]);

  const int warp = threadIdx.x / 32;
  const int row = warp / 2 * 32, column = warp % 2 * 32;
  float acc[2][4][4] = {};
  const int steps = (args.in + kStep - 1) / kStep;
  for (int step = 0; step < steps; ++step) {
    CopyAsyncWait<0>();
    __syncthreads();
    const bool more = step + 1 < steps;
    ManyStage& next = stages[(step + 1) % 2];
    if (more) {
      LoadActivations(args, next, first_row, (step + 1) * kStep);
      share.Load(args, weight, first_out, (step + 1) * kStep);
    }
    MultiplyStage<kType>(stages[step % 2], row, column, acc);
    if (more) share.Store(next);
  }
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = first_row + row + 16 * m + LaneId() / 4 + i / 2 * 8;
        const int c = first_out + column + 8 * n + LaneId() % 4 * 2 + i % 2;
        if (r < args.rows && c < args.out) Emit(args, r, c, acc[m][n][i]);
      }
    }
  }
}

template <DType kType, int kRows>
cudaError_t LaunchFew(const GenericLinearArgs& args, const WeightView& weight,
                      cudaStream_t stream) {
  constexpr int kOuts = FewShape<kType, kRows>::kOutsPerBlock;
  return LaunchDependent(FewRowsKernel<kType, kRows>, dim3((args.out + kOuts - 1) / kOuts),
                         dim3(kFewThreads), 0, 1, stream, args, weight);
}

template <DType kType>
cudaError_t LaunchType(const GenericLinearArgs& args, cudaStream_t stream) {
  const WeightView weight = ViewWeight(kType, args.weight, args.out, args.in);
  if (args.rows == 1) return LaunchFew<kType, 1>(args, weight, stream);
  if (args.rows == 2) return LaunchFew<kType, 2>(args, weight, stream);
  if (args.rows <= 4) return LaunchFew<kType, 4>(args, weight, stream);
  if (args.rows <= kFewRows) return LaunchFew<kType, 8>(args, weight, stream);
  const dim3 grid((args.out + kTile - 1) / kTile, (args.rows + kTile - 1) / kTile);
  return LaunchDependent(ManyRowsKernel<kType>, grid, dim3(kManyThreads), 0, 1, stream, args,
                         weight);
}

}  // namespace

std::string MissingGenericLinear(DType dtype, int64_t in, int64_t out) {
  if (!WithWeightType(dtype, [](auto) {})) {
    return "weight type " + std::to_string(static_cast<int>(dtype));
  }
  if (out < 1 || out > INT32_MAX - kTile) return "out " + std::to_string(out);
  if (in > 0 && in % InMultiple(dtype) == 0 && in <= INT32_MAX / 2) return "";
  return "in " + std::to_string(in) + " (a multiple of " + std::to_string(InMultiple(dtype)) + ")";
}

cudaError_t LaunchGenericLinear(const GenericLinearArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaErrorInvalidValue;
  WithWeightType(args.dtype,
                 [&](auto type) { error = LaunchType<decltype(type)::value>(args, stream); });
  return error;
}

}  // namespace tessera::kernels::cuda
