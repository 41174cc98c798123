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

// The first few words, of `count` of each launch, that are not the first launch's.
inline std::string Others(const std::vector<uint32_t>& words, size_t count, int out) {
  std::string others;
  int different = 0;
  for (size_t i = count; i < words.size() && different < 6; ++i) {
    if (words[i] == words[i % count]) continue;
    ++different;
    others += " " + std::to_string(i / count) + ":" + std::to_string(i % count / out) + ":" +
              std::to_string(i % out);
  }
  return others;
}

// Hundreds of launches that start early behind one another have the same bits: what a copy writes
// over a slot that is still read shows only now and then, and no tool sees it. Weights fit L2,
// where copies are quick; of the wide one each block has tiles for two passes.
inline void CheckRepeats(kernels::DType dtype, kernels::cuda::SkinnyMethod method, bool coded,
                         const char* method_word, std::byte* workspace, Report& report) {
  using namespace kernels::cuda;  // NOLINT: the names under test
  constexpr int kLaunches = 100, kRounds = 5, kMostIn = 4096;
  struct Shape {
    int in, out, rows;
  };
  constexpr Shape kShapes[] = {{4096, 4096, 1},  {4096, 4096, 8}, {4096, 4096, 16},
                               {4096, 4096, 64}, {256, 40000, 1}, {256, 40000, 8}};
  DeviceBuffer<uint32_t> x(size_t{64} * kMostIn / 2);
  FillRandom<<<1024, 256>>>(x.get(), x.size());
  DeviceBuffer<uint32_t> weight(WeightBytes(dtype, 4096, kMostIn) / 4);
  FillRandom<<<1024, 256>>>(weight.get(), weight.size());
  // As e4m3 none of these bytes is not a number.
  KeepBits<<<1024, 256>>>(weight.get(), weight.size(), 0xbfbfbfbfu);
  DeviceBuffer<float> scales(std::vector<float>(64 * kMostIn / 128, 0.5f));
  SkinnyArgs every{.dtype = dtype, .epilogue = SkinnyEpilogue::kStoreFloat, .method = method};
  every.task_count = 1;
  every.workspace = workspace;
  if (coded) {
    KeepBits<<<1024, 256>>>(x.get(), x.size(), 0xbfbfbfbfu);
    every.x_codes = {reinterpret_cast<uint8_t*>(x.get()), scales.get()};
  } else {
    every.x = reinterpret_cast<const __nv_bfloat16*>(x.get());
  }
  CHECK_CUDA(cudaDeviceSynchronize());
  for (const auto& [in, out, rows] : kShapes) {
    const size_t count = size_t(rows) * out;
    DeviceBuffer<uint32_t> y(count * kLaunches);
    SkinnyArgs probe = every;
    probe.in = in;
    probe.rows = rows;
    probe.tasks[0] = {.y = y.get(), .y_stride = out, .out = out};
    // int4 weights have codes of x only where their rows stay in one place.
    if (coded && dtype >= kernels::DType::kI4G128 && !SkinnyKeepsCodes(probe)) continue;
    Graph graph([&](cudaStream_t stream) {
      for (int i = 0; i < kLaunches; ++i) {
        SkinnyArgs args = every;
        args.in = in;
        args.rows = rows;
        args.place = i % 2 == 0 ? SkinnyPlace::kAlone : SkinnyPlace::kBeside;
        args.tasks[0].weight = reinterpret_cast<const std::byte*>(weight.get());
        args.tasks[0].y = y.get() + i * count;
        args.tasks[0].y_stride = out;
        args.tasks[0].out = out;
        if (coded) args.x_codes.kind = SkinnyKeepsCodes(args).value_or(CodeKind::kE4m3Rows);
        CHECK_CUDA(LaunchSkinny(args, stream));
      }
    });
    std::string others;
    for (int round = 0; round < kRounds; ++round) {
      y.Poison();
      graph.Run();
      others += Others(y.Download(), count, out);
    }
    report.Case(others.empty(), "%s%s: %d launches of %d rows to %d have the same bits%s%s",
                NameOf(dtype), method_word, kLaunches * kRounds, rows, out,
                others.empty() ? "" : "; others, launch:row:output:", others.c_str());
  }
}

}  // namespace tessera::check
