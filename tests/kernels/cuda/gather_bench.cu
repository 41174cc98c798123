// How fast one device gathers runs of bytes from random places of a large pool: one-dimensional
// bulk copies, 16-byte asynchronous copies and plain 16-byte loads, by run size and stages in
// flight. Prints a table in TB/s beside the bandwidth of a device-to-device copy.
//
//   gather_bench [pool_gigabytes]     (40, or what the device has less 4)
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/cuda/ptx.cuh"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera {
namespace {

using namespace kernels::cuda;  // NOLINT: device instructions by their own names

constexpr uint32_t kTileBytes = 16384;  // one stage
constexpr int kThreads = 128;           // that read tiles; bulk copies take a warp more
constexpr int kMaxStages = 6;

enum class Loader { kBulk, kAsync, kPlain };

struct GatherArgs {
  const unsigned char* pool;
  uint64_t runs;  // in the pool
  uint32_t run_bytes;
  uint32_t tiles;  // a block
  uint32_t stages;
  uint32_t* sink;
};

// The run at `index` of this block's random order.
__device__ __forceinline__ const unsigned char* RunAt(const GatherArgs& args, uint64_t index) {
  uint64_t z = (index + uint64_t{blockIdx.x} * 0x1000003ull) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9ull;
  z ^= z >> 32;
  return args.pool + __umul64hi(z, args.runs) * args.run_bytes;
}

__device__ __forceinline__ uint32_t ReadTile(const unsigned char* tile) {
  uint32_t sum = 0;
#pragma unroll
  for (uint32_t i = 0; i < kTileBytes / 16 / kThreads; ++i) {
    const uint4 v = reinterpret_cast<const uint4*>(tile)[i * kThreads + threadIdx.x];
    sum += v.x ^ v.y ^ v.z ^ v.w;
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads + 32) GatherBulk(GatherArgs args) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ uint64_t full[kMaxStages], empty[kMaxStages];
  if (threadIdx.x < args.stages) {
    BarrierInit(&full[threadIdx.x], 1);
    BarrierInit(&empty[threadIdx.x], kThreads / 32);
    BarrierInitFence();
  }
  __syncthreads();
  const uint32_t runs = kTileBytes / args.run_bytes;
  uint32_t sum = 0;
  for (uint32_t t = 0; t < args.tiles; ++t) {
    const uint32_t stage = t % args.stages;
    const uint32_t phase = t / args.stages & 1;
    unsigned char* tile = shared + stage * kTileBytes;
    if (threadIdx.x >= kThreads) {
      BarrierWait(&empty[stage], phase ^ 1);
      if (LaneId() == 0) BarrierExpect(&full[stage], kTileBytes);
      __syncwarp();
      for (uint32_t r = LaneId(); r < runs; r += 32) {
        BulkLoad(tile + r * args.run_bytes, RunAt(args, uint64_t{t} * runs + r), args.run_bytes,
                 &full[stage]);
      }
    } else {
      BarrierWait(&full[stage], phase);
      sum += ReadTile(tile);
      __syncwarp();
      if (LaneId() == 0) BarrierArrive(&empty[stage]);
    }
  }
  if (sum == 0x12345678) args.sink[0] = sum;
}

__global__ void __launch_bounds__(kThreads) GatherAsync(GatherArgs args) {
  extern __shared__ __align__(128) unsigned char shared[];
  const auto load = [&](uint32_t t) {
    unsigned char* tile = shared + t % args.stages * kTileBytes;
    const uint32_t runs = kTileBytes / args.run_bytes;
#pragma unroll
    for (uint32_t i = 0; i < kTileBytes / 16 / kThreads; ++i) {
      const uint32_t offset = (i * kThreads + threadIdx.x) * 16;
      const uint32_t r = offset / args.run_bytes;
      CopyAsync16(tile + offset,
                  RunAt(args, uint64_t{t} * runs + r) + (offset - r * args.run_bytes));
    }
  };
  for (uint32_t t = 0; t + 1 < args.stages; ++t) {
    load(t);
    CopyAsyncCommit();
  }
  uint32_t sum = 0;
  for (uint32_t t = 0; t < args.tiles; ++t) {
    if (t + args.stages - 1 < args.tiles) load(t + args.stages - 1);
    CopyAsyncCommit();
    if (args.stages == 3) {
      CopyAsyncWait<2>();
    } else if (args.stages == 4) {
      CopyAsyncWait<3>();
    } else {
      CopyAsyncWait<5>();
    }
    __syncthreads();
    sum += ReadTile(shared + t % args.stages * kTileBytes);
    __syncthreads();
  }
  if (sum == 0x12345678) args.sink[0] = sum;
}

// Stages are tiles whose loads are issued together.
template <uint32_t kStages>
__global__ void __launch_bounds__(kThreads) GatherPlain(GatherArgs args) {
  constexpr uint32_t kLoads = kTileBytes / 16 / kThreads;
  const uint32_t runs = kTileBytes / args.run_bytes;
  uint32_t sum = 0;
  for (uint32_t t = 0; t < args.tiles; t += kStages) {
    uint4 v[kStages * kLoads];
#pragma unroll
    for (uint32_t i = 0; i < kStages * kLoads; ++i) {
      const uint32_t offset = (i % kLoads * kThreads + threadIdx.x) * 16;
      const uint32_t r = offset / args.run_bytes;
      v[i] = *reinterpret_cast<const uint4*>(RunAt(args, uint64_t{t + i / kLoads} * runs + r) +
                                             (offset - r * args.run_bytes));
    }
#pragma unroll
    for (uint32_t i = 0; i < kStages * kLoads; ++i) sum += v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
  }
  if (sum == 0x12345678) args.sink[0] = sum;
}

__global__ void Fill(uint4* pool, uint64_t count) {
  for (uint64_t i = blockIdx.x * uint64_t{blockDim.x} + threadIdx.x; i < count;
       i += uint64_t{gridDim.x} * blockDim.x) {
    const auto x = static_cast<uint32_t>(i * 0x9e3779b97f4a7c15ull >> 32);
    pool[i] = make_uint4(x, x * 3 + 1, x * 5 + 2, x * 7 + 3);
  }
}

double Terabytes(Loader loader, GatherArgs args, int blocks) {
  const uint32_t shared = loader == Loader::kPlain ? 0 : args.stages * kTileBytes;
  check::Graph graph([&](cudaStream_t stream) {
    switch (loader) {
      case Loader::kBulk:
        GatherBulk<<<blocks, kThreads + 32, shared, stream>>>(args);
        break;
      case Loader::kAsync:
        GatherAsync<<<blocks, kThreads, shared, stream>>>(args);
        break;
      case Loader::kPlain:
        if (args.stages == 3) {
          GatherPlain<3><<<blocks, kThreads, 0, stream>>>(args);
        } else if (args.stages == 4) {
          GatherPlain<4><<<blocks, kThreads, 0, stream>>>(args);
        } else {
          GatherPlain<6><<<blocks, kThreads, 0, stream>>>(args);
        }
        break;
    }
    CHECK_CUDA(cudaGetLastError());
  });
  return static_cast<double>(blocks) * args.tiles * kTileBytes / (graph.MedianMs(5) * 1e-3) / 1e12;
}

int Main(int argc, char** argv) {
  const double copy = check::CopyBandwidth();
  size_t free_bytes, total_bytes;
  CHECK_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  size_t pool_bytes = (argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 40) << 30;
  pool_bytes = std::min(pool_bytes, free_bytes - (size_t{4} << 30)) / kTileBytes * kTileBytes;
  unsigned char* pool;
  uint32_t* sink;
  CHECK_CUDA(cudaMalloc(&pool, pool_bytes));
  CHECK_CUDA(cudaMalloc(&sink, 4));
  Fill<<<4096, 256>>>(reinterpret_cast<uint4*>(pool), pool_bytes / 16);
  CHECK_CUDA(cudaDeviceSynchronize());
  const int limit = kMaxStages * static_cast<int>(kTileBytes);
  CHECK_CUDA(cudaFuncSetAttribute(GatherBulk, cudaFuncAttributeMaxDynamicSharedMemorySize, limit));
  CHECK_CUDA(cudaFuncSetAttribute(GatherAsync, cudaFuncAttributeMaxDynamicSharedMemorySize, limit));
  int processors;
  CHECK_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
  std::printf("%s, pool %.0f GB, copy %.2f TB/s (read + write)\n", check::DeviceName().c_str(),
              static_cast<double>(pool_bytes) / 1e9, copy / 1e12);
  std::printf("TB/s, one and two blocks a multiprocessor\n%8s%8s%16s%16s%16s\n", "run", "stages",
              "bulk", "cp.async", "plain");
  for (uint32_t run = 1024; run <= 16384; run *= 2) {
    for (const uint32_t stages : {3u, 4u, 6u}) {
      std::printf("%8u%8u", run, stages);
      for (const Loader loader : {Loader::kBulk, Loader::kAsync, Loader::kPlain}) {
        for (const int per_processor : {1, 2}) {
          const int blocks = processors * per_processor;
          const uint32_t tiles = 3600 / per_processor;
          const double rate =
              Terabytes(loader, {pool, pool_bytes / run, run, tiles, stages, sink}, blocks);
          std::printf("%8.2f", rate);
        }
      }
      std::printf("\n");
    }
  }
  return 0;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) { return tessera::Main(argc, argv); }
