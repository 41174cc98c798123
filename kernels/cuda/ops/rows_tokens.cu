// Embedding rows, rotary angles.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops/rows.h"
#include "kernels/cuda/ops/weight_decode.cuh"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 128;

template <DType kType>
__global__ void __launch_bounds__(kThreads)
    EmbedKernel(const EmbedArgs args, const WeightView table) {
  LetNextStart();
  WaitForPrior();
  const int column = 8 * (blockIdx.x * kThreads + threadIdx.x);
  if (column >= args.width) return;
  const int64_t row = args.row_of != nullptr ? args.row_of[blockIdx.y] : blockIdx.y;
  float v[8];
  DecodeWeight8<kType>(table, args.tokens[row], column, v);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] *= args.scale;
  float4* y = reinterpret_cast<float4*>(args.y + row * args.width + column);
  y[0] = make_float4(v[0], v[1], v[2], v[3]);
  y[1] = make_float4(v[4], v[5], v[6], v[7]);
}

// In float64, where the reduction of a large angle costs no table and the result rounds once.
__global__ void __launch_bounds__(kThreads) RotaryAnglesKernel(const RotaryAnglesArgs args) {
  LetNextStart();
  WaitForPrior();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= int64_t{args.rows} * args.pairs) return;
  const float position = static_cast<float>(args.positions[i / args.pairs]);
  const float angle = __fmul_rn(position, args.frequencies[i % args.pairs]);
  double sine, cosine;
  sincos(static_cast<double>(angle), &sine, &cosine);
  args.cosine[i] = __fmul_rn(static_cast<float>(cosine), args.scale);
  args.sine[i] = __fmul_rn(static_cast<float>(sine), args.scale);
}

unsigned BlocksFor(int64_t items) {
  return static_cast<unsigned>((items + kThreads - 1) / kThreads);
}

}  // namespace

std::string MissingEmbed(DType dtype, int64_t width) {
  if (!WithWeightType(dtype, [](auto) {})) {
    return "table type " + std::to_string(static_cast<int>(dtype));
  }
  if (width > 0 && width % InMultiple(dtype) == 0 && width <= INT32_MAX) return "";
  return "width " + std::to_string(width) + " (a multiple of " + std::to_string(InMultiple(dtype)) +
         ")";
}

cudaError_t LaunchEmbed(const EmbedArgs& args, cudaStream_t stream) {
  const WeightView table = ViewWeight(args.dtype, args.table, args.vocab, args.width);
  const dim3 grid(BlocksFor(args.width / 8), args.rows);
  cudaError_t error = cudaErrorInvalidValue;
  WithWeightType(args.dtype, [&](auto type) {
    // A chain of kernels that may overtake one another begins here: what came before has ended, the
    // rotary angles among it.
    error = LaunchKernel(KernelStart::kInOrder, EmbedKernel<decltype(type)::value>, grid,
                         dim3(kThreads), 0, 1, stream, args, table);
  });
  return error;
}

cudaError_t LaunchRotaryAngles(const RotaryAnglesArgs& args, cudaStream_t stream) {
  return LaunchDependent(RotaryAnglesKernel, dim3(BlocksFor(int64_t{args.rows} * args.pairs)),
                         dim3(kThreads), 0, 1, stream, args);
}

}  // namespace tessera::kernels::cuda
