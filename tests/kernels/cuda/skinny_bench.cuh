// Times kernels/cuda/linear/skinny.h on the products of a Llama-3-8B layer, with cold weights.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cuda/linear/skinny.h"
#include "kernels/cuda/linear/skinny_int4.h"
#include "kernels/weight_planes.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::check {

inline const char* NameOf(kernels::DType dtype) {
  using kernels::DType;
  switch (dtype) {
    case DType::kBF16:
      return "bf16";
    case DType::kF8Channel:
      return "fp8 channel";
    case DType::kF8Block128:
      return "fp8 block";
    case DType::kI8Channel:
      return "int8";
    case DType::kI4G128:
      return "int4 128";
    case DType::kI4G64:
      return "int4 64";
    case DType::kI4G128Zero:
      return "int4 128 zero";
    default:
      return "int4 64 zero";
  }
}

// Bytes of a weight on the device, rounded up to 256.
inline size_t WeightBytes(kernels::DType dtype, int64_t out, int64_t in) {
  size_t bytes = size_t(out) * in * 2;
  if (dtype >= kernels::DType::kI4G128) {
    bytes = kernels::cuda::PackedInt4Bytes(dtype, out, in);
  } else if (dtype != kernels::DType::kBF16) {
    bytes = kernels::PlanesOf(dtype, out, in).bytes;
  }
  return (bytes + 255) / 256 * 256;
}

// Random bits whose halves are, as bfloat16, between 1/4 and 4 and, as bytes, any.
static __global__ void FillRandom(uint32_t* words, size_t count) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count;
       i += size_t{gridDim.x} * blockDim.x) {
    uint32_t h = static_cast<uint32_t>(i) * 0x9e3779b9u + static_cast<uint32_t>(i >> 32);
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= h >> 13;
    h *= 0xc2b2ae35u;
    h ^= h >> 16;
    words[i] = (h & 0x81ff81ffu) | 0x3e003e00u;
  }
}

// Buffers and launches of the four products, over an arena of weights.
class SkinnyBench {
 public:
  enum Kind { kQkv, kOut, kGateUp, kDown };
  static constexpr int kWidth = 4096, kInner = 14336, kKv = 1024;

  explicit SkinnyBench(std::byte* workspace)
      : workspace_(workspace),
        arena_(size_t{14} << 30),
        activations_(size_t{64} * kInner * 2),
        residual_(size_t{64} * kWidth),
        gain_(kWidth),
        codes_(size_t{64} * kInner),
        scales_(size_t{64} * (kInner / 128)),
        outputs_(size_t{64} * (kInner + kWidth + 2 * kKv)) {
    FillRandom<<<1024, 256>>>(reinterpret_cast<uint32_t*>(arena_.get()), arena_.size() / 4);
    FillRandom<<<1024, 256>>>(reinterpret_cast<uint32_t*>(activations_.get()),
                              activations_.size() / 2);
    CHECK_CUDA(cudaMemset(residual_.get(), 0x3d, residual_.size() * 4));
    CHECK_CUDA(cudaMemset(gain_.get(), 0x3d, gain_.size() * 4));
    CHECK_CUDA(cudaMemset(scales_.get(), 0x3d, scales_.size() * 4));
    FillRandom<<<1024, 256>>>(reinterpret_cast<uint32_t*>(codes_.get()), codes_.size() / 4);
    CHECK_CUDA(cudaDeviceSynchronize());
    copy_ = CopyBandwidth();
  }

  double copy_bandwidth() const { return copy_; }

  static size_t Bytes(kernels::DType dtype, Kind kind) {
    switch (kind) {
      case kQkv:
        return WeightBytes(dtype, kWidth, kWidth) + 2 * WeightBytes(dtype, kKv, kWidth);
      case kOut:
        return WeightBytes(dtype, kWidth, kWidth);
      case kGateUp:
        return 2 * WeightBytes(dtype, kInner, kWidth);
      default:
        return WeightBytes(dtype, kWidth, kInner);
    }
  }

  // Launches one product with the weights at `offset` of the arena, among its like or as in a step.
  void Launch(kernels::DType dtype, bool coded, Kind kind, int rows, size_t offset, bool in_step,
              cudaStream_t stream) {
    using namespace kernels::cuda;  // NOLINT: the names under test
    SkinnyArgs args;
    args.dtype = dtype;
    args.rows = rows;
    args.in = kind == kDown ? kInner : kWidth;
    args.workspace = workspace_;
    args.x = reinterpret_cast<const __nv_bfloat16*>(activations_.get());
    if (coded) {
      args.x = nullptr;
      args.x_codes = {codes_.get(), scales_.get()};
    }
    const std::byte* at = reinterpret_cast<const std::byte*>(arena_.get()) + offset;
    __nv_bfloat16* y = reinterpret_cast<__nv_bfloat16*>(outputs_.get());
    const auto add = [&](int out, void* to) {
      SkinnyTask& task = args.tasks[args.task_count++];
      task.weight = at;
      at += WeightBytes(dtype, out, args.in);
      task.y = to;
      task.y_stride = out;
      task.out = out;
    };
    if (kind == kQkv) {
      add(kWidth, y);
      add(kKv, y + int64_t{64} * kWidth);
      add(kKv, y + int64_t{64} * (kWidth + kKv));
    } else if (kind == kGateUp) {
      add(kInner, activations_.get());
      args.tasks[0].up = at;
      args.epilogue = SkinnyEpilogue::kGatedSilu;
    } else {
      add(kWidth, residual_.get());
      args.epilogue = SkinnyEpilogue::kResidual;
    }
    args.place = kind == kOut || kind == kDown ? SkinnyPlace::kAlone : SkinnyPlace::kBeside;
    if (coded) args.x_codes.kind = SkinnyKeepsCodes(args).value_or(CodeKind::kE4m3Rows);
    if (in_step) PlaceInStep(kind, &args);
    CHECK_CUDA(LaunchSkinny(args, stream));
  }

  // Microseconds of one product, over at least 1 GB of different weights.
  double ProductUs(kernels::DType dtype, bool coded, Kind kind, int rows) {
    const size_t bytes = Bytes(dtype, kind);
    const int count = static_cast<int>(std::max<size_t>(8, (size_t{1200} << 20) / bytes + 1));
    Graph graph([&](cudaStream_t stream) {
      for (int i = 0; i < count; ++i) Launch(dtype, coded, kind, rows, i * bytes, false, stream);
    });
    return graph.MedianMs(20) * 1e3 / count;
  }

  // Microseconds of a layer in a chain of 32 different ones, placed as in a step.
  double LayerUs(kernels::DType dtype, bool coded, int rows, int layers) {
    const Kind kinds[] = {kQkv, kOut, kGateUp, kDown};
    Graph graph([&](cudaStream_t stream) {
      size_t offset = 0;
      for (int layer = 0; layer < layers; ++layer) {
        for (const Kind kind : kinds) {
          Launch(dtype, coded, kind, rows, offset, true, stream);
          offset += Bytes(dtype, kind);
        }
      }
    });
    return graph.MedianMs(20) * 1e3 / layers;
  }

 private:
  // What the catalog does: norms of few rows are fused where that is faster, and a block takes what
  // the one before it has left.
  void PlaceInStep(Kind kind, kernels::cuda::SkinnyArgs* args) {
    using kernels::cuda::SkinnyPlace;
    const bool normed = args->x_codes.codes == nullptr && (kind == kQkv || kind == kGateUp);
    const bool fuses = normed && args->rows <= 2 && !kernels::cuda::SkinnyWantsRows(*args);
    if (fuses) {
      args->x = nullptr;
      args->residual = residual_.get();
      args->norm_weight = gain_.get();
    }
    args->place = fuses || (kind == kDown && roomy_) ? SkinnyPlace::kBeside : SkinnyPlace::kAlone;
    roomy_ = args->place == SkinnyPlace::kAlone && args->x_codes.codes == nullptr &&
             !kernels::cuda::SkinnyKeepsRows(*args);
  }

  std::byte* workspace_;
  bool roomy_ = false;  // behind the product launched last, in a step
  DeviceBuffer<uint8_t> arena_;
  DeviceBuffer<uint16_t> activations_;
  DeviceBuffer<float> residual_, gain_;
  DeviceBuffer<uint8_t> codes_;
  DeviceBuffer<float> scales_;
  DeviceBuffer<uint16_t> outputs_;
  double copy_ = 0;
};

// `only_type` (its number) and `only_rows`: 0 means all.
inline int BenchSkinny(std::byte* workspace, int only_type, int only_rows) {
  using kernels::DType;
  SkinnyBench bench(workspace);
  const double copy = bench.copy_bandwidth();
  std::printf("%s, copy %.0f GB/s (C)\n", DeviceName().c_str(), copy * 1e-9);
  std::printf(
      "us (fraction of C):      rows  qkv            o              gate+up        down    "
      "       sum            layer in a chain\n");
  const DType types[] = {DType::kBF16,      DType::kF8Channel, DType::kF8Block128,
                         DType::kI8Channel, DType::kI4G128,    DType::kI4G64Zero};
  const auto print = [&](DType dtype, bool coded, int rows) {
    std::printf("%-22s %6d", (std::string(NameOf(dtype)) + (coded ? ", coded" : "")).c_str(), rows);
    double total_us = 0;
    size_t total = 0;
    for (int kind = 0; kind < 4; ++kind) {
      const auto which = static_cast<SkinnyBench::Kind>(kind);
      const size_t bytes = SkinnyBench::Bytes(dtype, which);
      const double us = bench.ProductUs(dtype, coded, which, rows);
      std::printf("  %6.2f (%.3f)", us, bytes / (us * 1e-6) / copy);
      total_us += us;
      total += bytes;
    }
    const double layer = bench.LayerUs(dtype, coded, rows, 32);
    std::printf("  %6.2f (%.3f)  %6.2f (%.3f)\n", total_us, total / (total_us * 1e-6) / copy, layer,
                total / (layer * 1e-6) / copy);
  };
  for (const DType dtype : types) {
    for (const int rows : {1, 8, 16, 32, 64}) {
      if (only_type != 0 && only_type != static_cast<int>(dtype)) continue;
      if (only_rows != 0 && only_rows != rows) continue;
      print(dtype, false, rows);
      const bool int4 = dtype >= DType::kI4G128;
      if (dtype == DType::kF8Channel || int4) print(dtype, true, rows);
    }
  }
  return 0;
}

}  // namespace tessera::check
