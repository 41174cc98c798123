// Whether launches of kernels/cuda/linear/skinny.h have the same bits however often they run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/linear/skinny.h"
#include "tests/kernels/cuda/check_util.cuh"
#include "tests/kernels/cuda/skinny_bench.cuh"

namespace tessera::check {

static __global__ void KeepBits(uint32_t* words, size_t count, uint32_t kept) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count;
       i += size_t{gridDim.x} * blockDim.x) {
    words[i] &= kept;
  }
}

// Hundreds of launches that start early behind one another have the same bits: what a copy writes
// over a slot that is still read shows only now and then, and no tool sees it.
inline void CheckRepeats(kernels::DType dtype, kernels::cuda::SkinnyMethod method,
                         const char* method_word, std::byte* workspace, Report& report) {
  using namespace kernels::cuda;  // NOLINT: the names under test
  constexpr int kIn = 4096, kOut = 4096, kLaunches = 100, kRounds = 5;
  DeviceBuffer<uint32_t> x(size_t{64} * kIn / 2);
  FillRandom<<<1024, 256>>>(x.get(), x.size());
  const size_t bytes = WeightBytes(dtype, kOut, kIn);
  DeviceBuffer<uint32_t> weight(bytes / 4);
  FillRandom<<<1024, 256>>>(weight.get(), weight.size());
  // As e4m3 none of these bytes is not a number.
  KeepBits<<<1024, 256>>>(weight.get(), weight.size(), 0xbfbfbfbfu);
  CHECK_CUDA(cudaDeviceSynchronize());
  for (const int rows : {1, 8, 16, 64}) {
    const size_t count = size_t(rows) * kOut;
    DeviceBuffer<uint32_t> y(count * kLaunches);
    Graph graph([&](cudaStream_t stream) {
      for (int i = 0; i < kLaunches; ++i) {
        SkinnyArgs args;
        args.dtype = dtype;
        args.in = kIn;
        args.rows = rows;
        args.x = reinterpret_cast<const __nv_bfloat16*>(x.get());
        args.task_count = 1;
        args.epilogue = SkinnyEpilogue::kStoreFloat;
        args.workspace = workspace;
        args.method = method;
        args.place = i % 2 == 0 ? SkinnyPlace::kAlone : SkinnyPlace::kBeside;
        args.tasks[0].weight = reinterpret_cast<const std::byte*>(weight.get());
        args.tasks[0].y = y.get() + i * count;
        args.tasks[0].y_stride = kOut;
        args.tasks[0].out = kOut;
        CHECK_CUDA(LaunchSkinny(args, stream));
      }
    });
    std::string others;
    int different = 0;
    for (int round = 0; round < kRounds; ++round) {
      y.Poison();
      graph.Run();
      const std::vector<uint32_t> got = y.Download();
      for (size_t i = count; i < got.size(); ++i) {
        if (got[i] == got[i % count]) continue;
        if (++different > 6) continue;
        others += " " + std::to_string(i / count) + ":" + std::to_string(i % count / kOut) + ":" +
                  std::to_string(i % kOut);
      }
    }
    report.Case(different == 0, "%s%s: %d launches of %d rows have the same bits%s%s",
                NameOf(dtype), method_word, kLaunches * kRounds, rows,
                different == 0 ? "" : "; others, launch:row:output:", others.c_str());
  }
}

}  // namespace tessera::check
