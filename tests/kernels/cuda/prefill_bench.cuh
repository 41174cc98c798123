// The timed half of prefill_check.
#pragma once

#include <cuda_fp8.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "tests/kernels/cuda/prefill_support.cuh"

namespace tessera::check {

static __device__ float Normal(uint64_t i) {
  uint64_t z = i * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  const int sum = int(z & 0xffff) + int(z >> 16 & 0xffff) + int(z >> 32 & 0xffff) + int(z >> 48);
  return (sum - 131070) * (1.7320508f / 65536);
}
// Words of one bf16, or of two e4m3.
static __global__ void FillNormal(uint16_t* out, size_t count, uint64_t seed, bool e4m3) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count;
       i += size_t{gridDim.x} * blockDim.x) {
    if (e4m3) {
      const float2 pair = make_float2(Normal(2 * i + seed), Normal(2 * i + 1 + seed));
      out[i] = __nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3);
    } else {
      const __nv_bfloat16 value = __float2bfloat16(Normal(i + seed));
      out[i] = *reinterpret_cast<const uint16_t*>(&value);
    }
  }
}

struct Shape {
  uint32_t head_dim, q_heads, kv_heads;
  int runs, q_rows, position, window;
  DType dtype = DType::kBF16;
  int layers = 1;  // that launches take in turn, each with pages of its own
};

// Milliseconds and the rate over the products that the mask leaves; with `bandwidth` also what
// reading the keys and values once takes.
inline void Time(const Shape& s, Launcher launch, const char* name, double bandwidth = 0) {
  const int length = s.position + s.q_rows;
  const int pages = (length + kPageTokens - 1) / kPageTokens;
  const uint32_t bytes = s.dtype == DType::kBF16 ? 2 : 1;
  const size_t page_bytes = size_t{2} * kPageTokens * s.kv_heads * s.head_dim * bytes;
  const size_t elements = size_t(s.runs) * s.q_rows * s.q_heads * s.head_dim;
  std::vector<PageId> table(size_t(pages) * s.runs * s.layers);
  DeviceBuffer<uint16_t> q(elements), out(elements), arena(table.size() * page_bytes / 2);
  FillNormal<<<1024, 256>>>(q.get(), q.size(), 1, false);
  FillNormal<<<1024, 256>>>(arena.get(), arena.size(), 2, s.dtype == DType::kF8E4M3);
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = PageId(static_cast<uint32_t>(i * 7919 % table.size() * (page_bytes / 512)));
  }
  DeviceBuffer<PageId> tables(table);
  std::vector<PrefillRow> rows;
  for (int r = 0; r < s.runs; ++r) {
    rows.push_back({tables.get() + size_t(r) * pages * s.layers, static_cast<uint32_t>(pages),
                    r * s.q_rows, s.q_rows, s.position});
  }
  PrefillArgs args;
  args.q = q.get();
  args.out = out.get();
  args.arena = reinterpret_cast<const std::byte*>(arena.get());
  args.q_heads = s.q_heads;
  args.kv_heads = s.kv_heads;
  args.head_dim = s.head_dim;
  args.q_stride = int64_t{s.q_heads} * s.head_dim;
  args.kv_dtype = s.dtype;
  args.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
  args.window = s.window;
  const Prepared prepared(rows, OptionsOf(args, kernels::cuda::PrefillBlocks(s.head_dim)), args);
  double seen = 0;
  for (int i = 0; i < s.q_rows; ++i) {
    const int keys = s.position + i + 1;
    seen += s.window > 0 ? std::min(keys, s.window) : keys;
  }
  const double flops = 4 * seen * s.runs * s.q_heads * s.head_dim;
  Graph graph([&](cudaStream_t stream) {
    for (int layer = 0; layer < s.layers; ++layer) {
      args.table = static_cast<uint32_t>(layer);
      CHECK_CUDA(launch(args, stream));
    }
  });
  const double ms = graph.MedianMs(20) / s.layers;
  std::printf(
      "%-5s head %3u, %2u/%u heads, %2d x %5d queries at %5d, window %4d: %8.3f ms, "
      "%5.0f TFLOP/s (%.2f of 750)",
      name, s.head_dim, s.q_heads, s.kv_heads, s.runs, s.q_rows, s.position, s.window, ms,
      flops / ms * 1e-9, flops / ms * 1e-9 / 750);
  if (bandwidth > 0) {
    const double read = 1e3 * static_cast<double>(page_bytes) * pages * s.runs / bandwidth;
    std::printf(", %.3f ms to read (%.2f), %u parts", read, read / ms, prepared.plan.partials);
  }
  std::printf("\n");
}

// With wgmma, over pages of either type.
inline void TimeBoth(Shape s, double bandwidth = 0) {
  Time(s, Wgmma, "wgmma", bandwidth);
  s.dtype = DType::kF8E4M3;
  Time(s, Wgmma, "e4m3", bandwidth);
}

// The last rows of a prompt whose others were cached, beside a chain of such launches.
inline void BenchFew() {
  const double bandwidth = CopyBandwidth();
  for (const int context : {16384, 65536}) {
    for (const int rows : {16, 60, 256}) {
      TimeBoth({128, 32, 8, 1, rows, context - rows, 0, DType::kBF16, 4}, bandwidth);
    }
  }
  TimeBoth({128, 32, 8, 1, 528, 15856, 0, DType::kBF16, 4}, bandwidth);
  TimeBoth({128, 32, 8, 1, 512, 32256, 0, DType::kBF16, 4}, bandwidth);
}

// The three lengths that matter most.
inline void BenchLong() {
  for (const int length : {4096, 16384, 65536}) TimeBoth({128, 32, 8, 1, length, 0, 0});
}

inline void Bench() {
  BenchLong();
  TimeBoth({128, 32, 8, 1, 2048, 30720, 0});
  TimeBoth({128, 32, 8, 1, 512, 32256, 0});
  TimeBoth({128, 32, 8, 16, 1024, 0, 0});
  TimeBoth({128, 32, 8, 1, 16384, 0, 1024});
  TimeBoth({128, 32, 32, 1, 8192, 0, 0});
  TimeBoth({64, 32, 8, 1, 16384, 0, 0});
  TimeBoth({80, 32, 8, 1, 16384, 0, 0});
  TimeBoth({96, 32, 8, 1, 16384, 0, 0});
  TimeBoth({256, 16, 4, 1, 16384, 0, 0});
  for (const uint32_t dim : {64u, 128u, 256u}) {
    Time({dim, 32, 8, 1, 4096, 0, 0}, Mma, "mma");
    Time({dim, 32, 8, 1, 4096, 0, 0, DType::kF8E4M3}, Mma, "mma8");
  }
  BenchFew();
}

}  // namespace tessera::check
