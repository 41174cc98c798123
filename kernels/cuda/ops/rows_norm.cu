// Norms, and rows to codes, with a scale each or one for each 128 columns.
#include <algorithm>
#include <atomic>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops/row_math.cuh"
#include "kernels/cuda/ops/row_ring.cuh"
#include "kernels/cuda/ops/rows.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/row_codes.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kMaxThreads = 1024;

// What a kernel writes.
enum class RowForm { kBf16, kE4m3Rows, kE4m3Groups, kInt8Groups };
template <RowForm kForm>
inline constexpr CodeKind kKindOf = kForm == RowForm::kE4m3Rows     ? CodeKind::kE4m3Rows
                                    : kForm == RowForm::kE4m3Groups ? CodeKind::kE4m3Groups
                                                                    : CodeKind::kInt8Groups;
template <RowForm kForm>
inline constexpr bool kIsGrouped = kForm == RowForm::kE4m3Groups || kForm == RowForm::kInt8Groups;

// Sums and maxima over a block. Two buffers, so that a reduction needs one barrier: nobody writes
// one before everybody has read it.
class BlockReducer {
 public:
  __device__ explicit BlockReducer(float (*buffers)[32]) : buffers_(buffers) {}

  template <typename Combine>
  __device__ float operator()(float value, Combine warp_combine) {
    value = warp_combine(value);
    float* buffer = buffers_[turn_];
    turn_ ^= 1;
    if (LaneId() == 0) buffer[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_combine(LaneId() < blockDim.x / 32 ? buffer[LaneId()] : 0.0f);
  }

 private:
  float (*buffers_)[32];
  int turn_ = 0;
};

struct NormSource {
  const float* x;
  const int32_t* x_rows;
  const float* weight;
  float epsilon;
  int32_t width;
  float part;  // 1 / width
  __device__ const float* Row(int row) const {
    return x + int64_t{x_rows != nullptr ? x_rows[row] : row} * width;
  }
};

struct Bf16Source {
  const __nv_bfloat16* x;
  int64_t stride;
  // Eight columns, as bf16.
  __device__ uint4 Load(int64_t row, int column) const {
    return *reinterpret_cast<const uint4*>(x + row * stride + column);
  }
};

template <ActivationKind kKind>
struct GatedSource {
  const __nv_bfloat16* gate;
  const __nv_bfloat16* up;
  int64_t gate_stride;
  int64_t up_stride;
  __device__ uint4 Load(int64_t row, int column) const {
    const uint4 g = *reinterpret_cast<const uint4*>(gate + row * gate_stride + column);
    const uint4 u = *reinterpret_cast<const uint4*>(up + row * up_stride + column);
    return make_uint4(Pair(g.x, u.x), Pair(g.y, u.y), Pair(g.z, u.z), Pair(g.w, u.w));
  }

 private:
  static __device__ uint32_t Pair(uint32_t gates, uint32_t ups) {
    const float2 g = Bf16Pair(gates), u = Bf16Pair(ups);
    return PackBf16(Activate<kKind>(g.x) * u.x, Activate<kKind>(g.y) * u.y);
  }
};

// Ordered as integers, so that a not-a-number is the largest.
__device__ __forceinline__ float WarpMagnitude(float value) {
  return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(fabsf(value))));
}
__device__ __forceinline__ uint32_t Larger(uint32_t largest, float value) {
  return max(largest, __float_as_uint(value) & 0x7fffffffu);
}

// What the values of a row are multiplied with.
__device__ __forceinline__ float ScaleRow(uint32_t largest, const RowOutput& out, int64_t row,
                                          BlockReducer& reduce) {
  const CodeScale scale(CodeKind::kE4m3Rows,
                        __float_as_uint(reduce(__uint_as_float(largest), WarpMagnitude)));
  if (threadIdx.x == 0) out.codes.scales[row] = scale.scale;
  return scale.factor;
}
// The same of a group of columns, whose scale the lane with its first column, not -1, writes.
__device__ __forceinline__ float ScaleGroup(CodeKind kind, uint32_t largest, const RowOutput& out,
                                            int64_t row, int column) {
  const CodeScale scale(kind, largest);
  if (column < 0) return scale.factor;
  out.codes.scales[int64_t{column / kCodeGroup} * kCodeRows + row] = scale.scale;
  return scale.factor;
}
__device__ __forceinline__ uint32_t Largest(uint32_t largest, float4 v) {
  return Larger(Larger(Larger(Larger(largest, v.x), v.y), v.z), v.w);
}

// The first of a thread's `j`th run of four columns.
__device__ __forceinline__ int UnitColumn(int j) { return 4 * (threadIdx.x + j * blockDim.x); }

template <int kUnits, RowForm kForm>
__device__ __forceinline__ void StoreRow(const RowOutput& out, int row, int width,
                                         const float4 (&v)[kUnits], BlockReducer& reduce) {
  float factor = 0;
  if constexpr (kForm == RowForm::kE4m3Rows) {
    uint32_t largest = 0;
#pragma unroll
    for (int j = 0; j < kUnits; ++j) largest = Largest(largest, v[j]);
    factor = ScaleRow(largest, out, row, reduce);
  }
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const int column = UnitColumn(j);
    if constexpr (kIsGrouped<kForm>) {
      // A warp's run is a group.
      const uint32_t largest = __reduce_max_sync(0xffffffffu, Largest(0, v[j]));
      factor = ScaleGroup(kKindOf<kForm>, largest, out, row,
                          LaneId() == 0 && column < width ? column : -1);
    }
    if (column >= width) continue;
    if constexpr (kForm == RowForm::kBf16) {
      StoreBf16x4(out.y + row * out.stride + column, v[j]);
    } else {
      StoreCodes(kKindOf<kForm>, out.codes.codes + row * out.stride, column, v[j], factor);
    }
  }
}

// Each thread holds kUnits runs of four columns of a row: `v` those of the row, weight(j) those of
// the norm's weight.
template <int kUnits, RowForm kForm, typename Weight>
__device__ __forceinline__ void NormRow(const NormSource& source, const RowOutput& out, int row,
                                        float4 (&v)[kUnits], Weight weight, BlockReducer& reduce) {
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    squares += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
  }
  const float mean = reduce(squares, WarpSum) * source.part;
  const float scale = rsqrtf(mean + source.epsilon);
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const float4 w = weight(j);
    v[j] = make_float4(v[j].x * scale * w.x, v[j].y * scale * w.y, v[j].z * scale * w.z,
                       v[j].w * scale * w.w);
  }
  StoreRow<kUnits, kForm>(out, row, source.width, v, reduce);
}

__device__ __forceinline__ float4 LoadUnit(const float* from, int j, int width) {
  const int column = UnitColumn(j);
  return column < width ? *reinterpret_cast<const float4*>(from + column) : make_float4(0, 0, 0, 0);
}

// A row a block.
template <int kUnits, RowForm kForm>
__global__ void __launch_bounds__(kMaxThreads)
    NormKernel(const NormSource source, const RowOutput out) {
  __shared__ float buffers[2][32];
  BlockReducer reduce(buffers);
  // Before the rows are there, unless registers are short.
  constexpr bool kRoom = kUnits <= 2;
  float4 weight[kRoom ? kUnits : 1], v[kUnits];
  if constexpr (kRoom) {
#pragma unroll
    for (int j = 0; j < kUnits; ++j) weight[j] = LoadUnit(source.weight, j, source.width);
  }
  LetNextStart();
  WaitForPrior();
  const float* from = source.Row(blockIdx.x);
#pragma unroll
  for (int j = 0; j < kUnits; ++j) v[j] = LoadUnit(from, j, source.width);
  const auto weight_of = [&](int j) {
    if constexpr (kRoom) {
      return weight[j];
    } else {
      return LoadUnit(source.weight, j, source.width);
    }
  };
  NormRow<kUnits, kForm>(source, out, blockIdx.x, v, weight_of, reduce);
}

// Many rows: blocks take them in turn, with the next ones on their way.
template <int kUnits, RowForm kForm>
__global__ void __launch_bounds__(kMaxThreads)
    NormRowsKernel(const NormSource source, const RowOutput out, int rows) {
  __shared__ float buffers[2][32];
  extern __shared__ uint4 memory[];
  BlockReducer reduce(buffers);
  float4 weight[kUnits], v[kUnits];
#pragma unroll
  for (int j = 0; j < kUnits; ++j) weight[j] = LoadUnit(source.weight, j, source.width);
  LetNextStart();
  WaitForPrior();
  RowRing<kUnits> ring(memory);
  const auto ask = [&](int row) {
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const bool inside = row < rows && UnitColumn(j) < source.width;
      ring.Ask(j, inside ? source.Row(row) + UnitColumn(j) : source.x, inside);
    }
    ring.Asked();
  };
  ring.Fill(blockIdx.x, ask);
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    ring.Wait();
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const uint4 bits = ring.Take(j);
      v[j] = make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                         __uint_as_float(bits.w));
    }
    ring.Next(row, ask);
    NormRow<kUnits, kForm>(
        source, out, row, v, [&](int j) { return weight[j]; }, reduce);
  }
}

// The shape of a block follows from the width alone, so that a row's sums have one order.
template <int kUnits, RowForm kForm>
cudaError_t LaunchNormUnits(const RmsNormArgs& args, cudaStream_t stream) {
  const NormSource source = {args.x,       args.x_rows, args.weight,
                             args.epsilon, args.width,  1.0f / static_cast<float>(args.width)};
  const int units = (args.width / 4 + kUnits - 1) / kUnits;
  const int threads = (units + 31) / 32 * 32;
  if constexpr (kUnits <= 2 && !kIsGrouped<kForm>) {
    static std::atomic<uint64_t> prepared{0};
    const auto kernel = NormRowsKernel<kUnits, kForm>;
    const int blocks = RingBlocks(kernel, threads, kUnits, args.rows, prepared);
    if (blocks > 0) {
      return LaunchDependent(kernel, dim3(blocks), dim3(threads), RingBytes(threads, kUnits), 1,
                             stream, source, args.out, args.rows);
    }
  }
  return LaunchDependent(NormKernel<kUnits, kForm>, dim3(args.rows), dim3(threads), 0, 1, stream,
                         source, args.out);
}
template <RowForm kForm>
cudaError_t LaunchNorm(const RmsNormArgs& args, cudaStream_t stream) {
  if (args.width <= 2048) return LaunchNormUnits<1, kForm>(args, stream);
  if (args.width <= 8192) return LaunchNormUnits<2, kForm>(args, stream);
  if (args.width <= 16384) return LaunchNormUnits<4, kForm>(args, stream);
  return LaunchNormUnits<8, kForm>(args, stream);
}

// A row a block. A thread keeps kUnits runs of eight columns between the search for the row's
// largest value and the codes.
template <class Source, int kUnits>
__global__ void __launch_bounds__(kMaxThreads, kUnits <= 2 ? 2 : 1)
    ToF8Kernel(const Source source, const RowOutput out, int width) {
  __shared__ float buffers[2][32];
  BlockReducer reduce(buffers);
  LetNextStart();
  WaitForPrior();
  const int64_t row = blockIdx.x;
  const int units = width / 8;
  const auto unit = [](int j) { return static_cast<int>(threadIdx.x + j * blockDim.x); };
  uint4 v[kUnits];
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    v[j] = unit(j) < units ? source.Load(row, 8 * unit(j)) : make_uint4(0, 0, 0, 0);
  }
  if (out.y != nullptr) {
    auto* y = reinterpret_cast<uint4*>(out.y + row * out.stride);
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      if (unit(j) < units) y[unit(j)] = v[j];
    }
  }
  uint32_t pairs = 0;
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    pairs = LargerBits(LargerBits(LargerBits(LargerBits(pairs, v[j].x), v[j].y), v[j].z), v[j].w);
  }
  const float factor = ScaleRow(LargestOfPair(pairs), out, row, reduce);
  auto* codes = reinterpret_cast<uint2*>(out.codes.codes + row * out.stride);
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    if (unit(j) >= units) continue;
    const float2 a = Bf16Pair(v[j].x), b = Bf16Pair(v[j].y), c = Bf16Pair(v[j].z),
                 d = Bf16Pair(v[j].w);
    codes[unit(j)] = make_uint2(PackE4m3(make_float4(a.x, a.y, b.x, b.y), factor),
                                PackE4m3(make_float4(c.x, c.y, d.x, d.y), factor));
  }
}
template <int kUnits, class Source>
cudaError_t LaunchToF8Units(const Source& source, const RowOutput& out, int rows, int width,
                            cudaStream_t stream) {
  const int threads = ((width / 8 + kUnits - 1) / kUnits + 31) / 32 * 32;
  return LaunchDependent(ToF8Kernel<Source, kUnits>, dim3(rows), dim3(threads), 0, 1, stream,
                         source, out, width);
}

// Of rows that become codes by groups: columns that a block takes at a time, eight a thread, so
// that a group is half a warp's; and how many such runs of a block are on their way at once.
constexpr int kGroupThreads = 256;
constexpr int kGroupRun = 8 * kGroupThreads;
constexpr int kGroupRuns = 4;

// So few blocks that each finds room beside the product before.
template <class Source, CodeKind kKind>
__global__ void __launch_bounds__(kGroupThreads)
    ToGroupCodesKernel(const Source source, const RowOutput out, int rows, int width) {
  LetNextStart();
  const int row_runs = (width + kGroupRun - 1) / kGroupRun, runs = row_runs * rows;
  const int column = 8 * static_cast<int>(threadIdx.x);
  WaitForPrior();
  for (int first = blockIdx.x; first < runs; first += kGroupRuns * gridDim.x) {
    uint4 v[kGroupRuns];
    int64_t row[kGroupRuns];
    int at[kGroupRuns];  // the thread's first column; `width` or more: none
#pragma unroll
    for (int i = 0; i < kGroupRuns; ++i) {
      const int run = first + i * static_cast<int>(gridDim.x);
      row[i] = run / row_runs;
      at[i] = run < runs ? run % row_runs * kGroupRun + column : width;
      v[i] = at[i] < width ? source.Load(row[i], at[i]) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kGroupRuns; ++i) {
      if (first + i * static_cast<int>(gridDim.x) >= runs) break;
      const bool inside = at[i] < width;
      uint32_t pairs =
          LargerBits(LargerBits(LargerBits(LargerBits(0, v[i].x), v[i].y), v[i].z), v[i].w);
#pragma unroll
      for (int offset = 1; offset < 16; offset *= 2) {
        pairs = LargerBits(pairs, __shfl_xor_sync(0xffffffffu, pairs, offset));
      }
      const float factor = ScaleGroup(kKind, LargestOfPair(pairs), out, row[i],
                                      inside && LaneId() % 16 == 0 ? at[i] : -1);
      if (!inside) continue;
      const int64_t to = row[i] * out.stride;
      if (out.y != nullptr) *reinterpret_cast<uint4*>(out.y + to + at[i]) = v[i];
      StoreCodes(kKind, out.codes.codes + to, at[i], make_uint2(v[i].x, v[i].y), factor);
      StoreCodes(kKind, out.codes.codes + to, at[i] + 4, make_uint2(v[i].z, v[i].w), factor);
    }
  }
}

template <class Source>
cudaError_t LaunchToCodes(const Source& source, const RowOutput& out, int rows, int width,
                          cudaStream_t stream) {
  if (out.codes.kind != CodeKind::kE4m3Rows) {
    const int runs = (width + kGroupRun - 1) / kGroupRun * rows;
    const int blocks = std::min(runs, CurrentDeviceFacts().multiprocessors);
    const auto kernel = out.codes.kind == CodeKind::kInt8Groups
                            ? ToGroupCodesKernel<Source, CodeKind::kInt8Groups>
                            : ToGroupCodesKernel<Source, CodeKind::kE4m3Groups>;
    return LaunchDependent(kernel, dim3(blocks), dim3(kGroupThreads), 0, 1, stream, source, out,
                           rows, width);
  }
  if (width <= 8192) return LaunchToF8Units<1>(source, out, rows, width, stream);
  if (width <= 16384) return LaunchToF8Units<2>(source, out, rows, width, stream);
  if (width <= 32768) return LaunchToF8Units<4>(source, out, rows, width, stream);
  return LaunchToF8Units<8>(source, out, rows, width, stream);
}

// Eight columns a thread.
template <ActivationKind kKind>
__global__ void __launch_bounds__(256)
    GatedKernel(const GatedSource<kKind> source, const RowOutput out, int width) {
  LetNextStart();
  WaitForPrior();
  const int column = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= width) return;
  const int64_t row = blockIdx.y;
  *reinterpret_cast<uint4*>(out.y + row * out.stride + column) = source.Load(row, column);
}

template <ActivationKind kKind>
cudaError_t LaunchGated(const GatedActivationArgs& args, cudaStream_t stream) {
  const GatedSource<kKind> source = {args.gate, args.up, args.gate_stride, args.up_stride};
  if (args.out.codes.codes != nullptr) {
    return LaunchToCodes(source, args.out, args.rows, args.width, stream);
  }
  const int threads = std::min(256, (args.width / 8 + 31) / 32 * 32);
  const dim3 grid((args.width / 8 + threads - 1) / threads, args.rows);
  return LaunchDependent(GatedKernel<kKind>, grid, dim3(threads), 0, 1, stream, source, args.out,
                         args.width);
}

__global__ void __launch_bounds__(256) FloatToBf16Kernel(const FloatToBf16Args args) {
  LetNextStart();
  WaitForPrior();
  const int64_t step = int64_t{4} * gridDim.x * blockDim.x;
  for (int64_t i = 4 * (int64_t{blockIdx.x} * blockDim.x + threadIdx.x); i < args.count;
       i += step) {
    StoreBf16x4(args.y + i, *reinterpret_cast<const float4*>(args.x + i));
  }
}

}  // namespace

std::string MissingRowWidth(int64_t width) {
  if (width > 0 && width % 8 == 0 && width <= kMaxRowWidth) return "";
  return "width " + std::to_string(width) + " (a multiple of 8 up to " +
         std::to_string(kMaxRowWidth) + ")";
}

cudaError_t LaunchRmsNorm(const RmsNormArgs& args, cudaStream_t stream) {
  if (args.out.codes.codes == nullptr) return LaunchNorm<RowForm::kBf16>(args, stream);
  switch (args.out.codes.kind) {
    case CodeKind::kE4m3Rows:
      return LaunchNorm<RowForm::kE4m3Rows>(args, stream);
    case CodeKind::kE4m3Groups:
      return LaunchNorm<RowForm::kE4m3Groups>(args, stream);
    case CodeKind::kInt8Groups:
      break;
  }
  return LaunchNorm<RowForm::kInt8Groups>(args, stream);
}

cudaError_t LaunchGatedActivation(const GatedActivationArgs& args, cudaStream_t stream) {
  return args.kind == ActivationKind::kSilu ? LaunchGated<ActivationKind::kSilu>(args, stream)
                                            : LaunchGated<ActivationKind::kGeluTanh>(args, stream);
}

cudaError_t LaunchCodeRows(const CodeRowsArgs& args, cudaStream_t stream) {
  return LaunchToCodes(Bf16Source{args.x, args.x_stride}, args.out, args.rows, args.width, stream);
}

cudaError_t LaunchFloatToBf16(const FloatToBf16Args& args, cudaStream_t stream) {
  const int64_t blocks = (args.count / 4 + 255) / 256;
  const int64_t resident = int64_t{8} * CurrentDeviceFacts().multiprocessors;
  return LaunchDependent(FloatToBf16Kernel, dim3(static_cast<unsigned>(std::min(blocks, resident))),
                         dim3(256), 0, 1, stream, args);
}

}  // namespace tessera::kernels::cuda
