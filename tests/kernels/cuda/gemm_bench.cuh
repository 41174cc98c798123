// The timed half of gemm_check: the four products of a Llama-3-8B layer, cold weights, in one
// graph, beside flops / 750 TFLOP/s (bf16) or 1500 (e4m3) and bytes / copy bandwidth.
#pragma once

#include <chrono>
#include <memory>

#include "kernels/cuda/linear/gemm.h"
#include "kernels/cuda/linear/gemm_kernels.h"
#include "kernels/weight_planes.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::check {

using kernels::DType;

inline std::unique_ptr<kernels::cuda::GemmEngine> MakeEngine(
    kernels::cuda::GemmNumerics numerics, const DeviceBuffer<uint8_t>& workspace,
    const std::vector<std::string>& folders) {
  auto engine =
      kernels::cuda::GemmEngine::Create({.numerics = numerics,
                                         .workspace = reinterpret_cast<std::byte*>(workspace.get()),
                                         .workspace_bytes = kernels::cuda::kGemmWorkspaceBytes,
                                         .library_directories = folders});
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", FourLines(engine.status()).c_str());
    std::exit(2);
  }
  return *std::move(engine);
}

// silu(gate) * up: the pass between the gated product and the next. Each thread has four times
// sixteen bytes of both in flight.
__global__ void __launch_bounds__(256)
    BenchGatedActivation(const uint4* gate, const uint4* up, uint4* y) {
  const size_t first = blockIdx.x * size_t{1024} + threadIdx.x;
  uint4 a[4], b[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    a[i] = gate[first + i * 256];
    b[i] = up[first + i * 256];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    auto* g = reinterpret_cast<__nv_bfloat162*>(&a[i]);
    const auto* u = reinterpret_cast<const __nv_bfloat162*>(&b[i]);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float2 x = __bfloat1622float2(g[k]), z = __bfloat1622float2(u[k]);
      g[k] = __floats2bfloat162_rn(__fdividef(x.x * z.x, 1 + __expf(-x.x)),
                                   __fdividef(x.y * z.y, 1 + __expf(-x.y)));
    }
    y[first + i * 256] = a[i];
  }
}

class GemmBench {
 public:
  explicit GemmBench(const std::vector<std::string>& folders)
      : folders_(folders),
        weights_(kWeightPool),
        x_(size_t{2} * kMaxRows * 14336),
        codes_(size_t{kMaxRows} * 14336),
        y_(size_t{2} * kMaxRows * 28672),
        residual_(size_t{kMaxRows} * 4096),
        x_scales_(kMaxRows),
        workspace_(kernels::cuda::kGemmWorkspaceBytes) {
    using kernels::cuda::LaunchFillTrial;
    using kernels::cuda::TrialFormat;
    CHECK_CUDA(LaunchFillTrial(x_.get(), x_.size(), x_.size(), TrialFormat::kBf16, nullptr));
    CHECK_CUDA(
        LaunchFillTrial(codes_.get(), codes_.size(), codes_.size(), TrialFormat::kE4m3, nullptr));
    CHECK_CUDA(LaunchFillTrial(x_scales_.get(), x_scales_.size() * 4, x_scales_.size() * 4,
                               TrialFormat::kFloat, nullptr));
    CHECK_CUDA(cudaMemset(residual_.get(), 0, residual_.size() * 4));
    bandwidth_ = CopyBandwidth();
  }

  int Run() {
    std::printf("%s, copy %.2f TB/s\n", DeviceName().c_str(), bandwidth_ * 1e-12);
    std::printf(
        "TFLOP/s, cold weights: qkv 6144x4096, o 4096x4096 (residual), gate+up 28672x4096,"
        " down 4096x14336 (residual); us of the four\n");
    Passes();
    Table("bf16", DType::kBF16, false);
    Table("f8 channel, codes given", DType::kF8Channel, true);
    Table("f8 channel, rows quantized", DType::kF8Channel, false);
    Table("f8 block, rows quantized", DType::kF8Block128, false);
    Table("i4 g128", DType::kI4G128, false);
    Table("i8 channel", DType::kI8Channel, false);
    return 0;
  }

 private:
  static constexpr int kMaxRows = 16384;
  static constexpr size_t kWeightPool = size_t{1100} << 20;
  struct Product {
    int out, in;
    kernels::cuda::GemmEpilogue epilogue;
  };
  static constexpr Product kProducts[] = {{6144, 4096, kernels::cuda::GemmEpilogue::kStore},
                                          {4096, 4096, kernels::cuda::GemmEpilogue::kResidual},
                                          {28672, 4096, kernels::cuda::GemmEpilogue::kStore},
                                          {4096, 14336, kernels::cuda::GemmEpilogue::kResidual}};

  static size_t WeightBytes(DType dtype, const Product& product) {
    if (dtype == DType::kBF16) return size_t{2} * product.out * product.in;
    return (kernels::PlanesOf(dtype, product.out, product.in).bytes + 255) / 256 * 256;
  }

  // Random codes and plausible scales for as many weights as the pool holds.
  void FillWeights(DType dtype, const Product& product) {
    using kernels::cuda::TrialFormat;
    const bool e4m3 = dtype == DType::kF8Channel || dtype == DType::kF8Block128;
    CHECK_CUDA(kernels::cuda::LaunchFillTrial(weights_.get(), kWeightPool, kWeightPool,
                                              e4m3 ? TrialFormat::kE4m3 : TrialFormat::kBf16,
                                              nullptr));
    if (!kernels::HasPlanes(dtype)) return;
    const kernels::WeightPlanes planes = kernels::PlanesOf(dtype, product.out, product.in);
    const bool half = dtype >= DType::kI4G128;
    for (size_t at = 0; at + planes.bytes <= kWeightPool; at += WeightBytes(dtype, product)) {
      // 0x3c00 is one as f16 (0x3c3c is 1.06); the float format gives 1 to 3.
      if (half) {
        CHECK_CUDA(
            cudaMemset(weights_.get() + at + planes.scales_offset, 0x3c, planes.scales_bytes));
      } else {
        CHECK_CUDA(kernels::cuda::LaunchFillTrial(weights_.get() + at + planes.scales_offset,
                                                  planes.scales_bytes, planes.scales_bytes,
                                                  TrialFormat::kFloat, nullptr));
      }
    }
  }

  // Seconds of one product.
  double Time(kernels::cuda::GemmEngine& engine, DType dtype, const Product& product, int rows,
              bool codes) {
    const size_t stride = WeightBytes(dtype, product);
    const size_t cold_bytes = rows <= 512 ? kWeightPool : size_t{256} << 20;
    const int count = static_cast<int>(std::max<size_t>(2, cold_bytes / stride));
    Graph graph([&](cudaStream_t stream) {
      for (int i = 0; i < count; ++i) {
        kernels::cuda::GemmArgs args;
        args.dtype = dtype;
        args.out = product.out;
        args.in = product.in;
        args.rows = rows;
        args.x = reinterpret_cast<const __nv_bfloat16*>(x_.get());
        if (codes) {
          args.x_codes = codes_.get();
          args.x_scales = x_scales_.get();
        }
        args.weight = reinterpret_cast<const std::byte*>(
            weights_.get() + stride * (static_cast<size_t>(i) % (kWeightPool / stride)));
        args.epilogue = product.epilogue;
        args.y = product.epilogue == kernels::cuda::GemmEpilogue::kStore
                     ? static_cast<void*>(y_.get())
                     : residual_.get();
        args.y_stride = product.out;
        const Status status = engine.Run(args, stream);
        if (!status.ok()) {
          std::fprintf(stderr, "%s\n", FourLines(status).c_str());
          std::exit(2);
        }
      }
    });
    return graph.MedianMs(20) * 1e-3 / count;
  }

  struct Way {
    const char* name;
    kernels::cuda::GemmNumerics numerics;
    kernels::cuda::GemmSearch search;
  };
  static constexpr Way kWays[] = {
      {"heuristic", kernels::cuda::GemmNumerics::kFast, kernels::cuda::GemmSearch::kHeuristic},
      {"timed", kernels::cuda::GemmNumerics::kFast, kernels::cuda::GemmSearch::kTimed},
      {"invariant", kernels::cuda::GemmNumerics::kRowInvariant, kernels::cuda::GemmSearch::kTimed}};

  std::unique_ptr<kernels::cuda::GemmEngine> Prepared(const Way& way, DType dtype, int max_rows) {
    auto engine = MakeEngine(way.numerics, workspace_, folders_);
    const auto begin = std::chrono::steady_clock::now();
    for (const Product& product : kProducts) {
      const Status status =
          engine->Prepare({dtype, product.out, product.in, product.epilogue}, max_rows, way.search);
      if (!status.ok()) std::printf("%s\n", FourLines(status).c_str());
    }
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    std::printf("   %s: prepared in %.2f s\n", way.name, passed.count());
    return engine;
  }

  // The ways of one type beside each other: a hot card runs the same kernel 15 % slower than a cool
  // one, so what is compared must follow at once.
  void Table(const char* name, DType dtype, bool codes) {
    const bool dequantizes = dtype == DType::kI8Channel || dtype >= DType::kI4G128;
    std::vector<int> rows_list = {64, 96, 128, 192, 256, 512, 2048, 8192, 16384};
    if (dequantizes) rows_list = {64, 128, 256, 512, 1024, 2048, 8192};
    std::printf("-- %s\n", name);
    std::vector<std::unique_ptr<kernels::cuda::GemmEngine>> engines;
    for (const Way& way : kWays) {
      if (dequantizes && way.search == kernels::cuda::GemmSearch::kHeuristic) continue;
      if (dequantizes && !engines.empty()) break;
      engines.push_back(Prepared(way, dtype, rows_list.back()));
    }
    // [engine][rows][product]
    std::vector<std::vector<std::vector<double>>> times(
        engines.size(), std::vector<std::vector<double>>(rows_list.size()));
    for (const Product& product : kProducts) {
      FillWeights(dtype, product);
      for (size_t i = 0; i < rows_list.size(); ++i) {
        for (size_t e = 0; e < engines.size(); ++e) {
          times[e][i].push_back(Time(*engines[e], dtype, product, rows_list[i], codes));
        }
      }
    }
    double bytes = 0;
    for (const Product& product : kProducts) bytes += double(WeightBytes(dtype, product));
    const bool e4m3 = dtype == DType::kF8Channel || dtype == DType::kF8Block128;
    std::printf("   weights at the copy's speed %.1f us\n", bytes / bandwidth_ * 1e6);
    for (size_t i = 0; i < rows_list.size(); ++i) {
      double flops_of_all = 0;
      for (const Product& product : kProducts) {
        flops_of_all += 2.0 * rows_list[i] * product.out * product.in;
      }
      std::printf("%6d rows, flop limit %8.1f us:", rows_list[i],
                  flops_of_all / (e4m3 ? 1500e12 : 750e12) * 1e6);
      for (const auto& of_engine : times) {
        double sum = 0;
        for (size_t p = 0; p < of_engine[i].size(); ++p) {
          const double flops = 2.0 * rows_list[i] * kProducts[p].out * kProducts[p].in;
          std::printf(" %4.0f", flops / of_engine[i][p] * 1e-12);
          sum += of_engine[i][p];
        }
        std::printf(" = %4.0f %7.1f us |", flops_of_all / sum * 1e-12, sum * 1e6);
      }
      std::printf("\n");
    }
    std::fflush(stdout);
  }

  // The memory-bound passes around the products.
  void Passes() {
    std::printf("-- passes, fraction of the copy's bandwidth\n");
    const auto line = [&](const char* name, double bytes, double ms) {
      std::printf("%-40s %8.1f us  %.2f\n", name, ms * 1e3, bytes / (ms * 1e-3) / bandwidth_);
    };
    const Product product = kProducts[2];
    using kernels::cuda::Int4Layout;
    const auto dequantize = [&](const char* name, DType dtype, Int4Layout layout) {
      FillWeights(dtype, product);
      Graph graph([&](cudaStream_t stream) {
        kernels::cuda::DequantizeArgs args;
        args.dtype = dtype;
        args.layout = layout;
        args.weight = reinterpret_cast<const std::byte*>(weights_.get());
        args.out = product.out;
        args.in = product.in;
        args.out_count = product.out;
        args.w = reinterpret_cast<__nv_bfloat16*>(y_.get());
        CHECK_CUDA(LaunchDequantize(args, stream));
      });
      line(name, double(WeightBytes(dtype, product)) + 2.0 * product.out * product.in,
           graph.MedianMs());
    };
    dequantize("dequantize 28672x4096 i4 g128", DType::kI4G128, Int4Layout::kCanonical);
    dequantize("dequantize 28672x4096 i4 g128 packed", DType::kI4G128, Int4Layout::kPacked);
    dequantize("dequantize 28672x4096 i4 g64 zero", DType::kI4G64Zero, Int4Layout::kCanonical);
    dequantize("dequantize 28672x4096 i8 channel", DType::kI8Channel, Int4Layout::kCanonical);
    dequantize("dequantize 28672x4096 f8 block", DType::kF8Block128, Int4Layout::kCanonical);
    const int rows = 8192;
    for (const bool groups : {false, true}) {
      Graph graph([&](cudaStream_t stream) {
        kernels::cuda::QuantizeE4m3Args args{
            reinterpret_cast<const __nv_bfloat16*>(x_.get()), rows, rows, 14336, y_.get(),
            reinterpret_cast<float*>(weights_.get())};
        CHECK_CUDA(groups ? LaunchQuantizeE4m3Groups(args, stream)
                          : LaunchQuantizeE4m3Rows(args, stream));
      });
      line(groups ? "quantize groups 8192x14336" : "quantize rows 8192x14336", 3.0 * rows * 14336,
           graph.MedianMs());
    }
    Graph graph([&](cudaStream_t stream) {
      const size_t units = size_t{rows} * 14336 / 8;
      BenchGatedActivation<<<unsigned(units / 1024), 256, 0, stream>>>(
          reinterpret_cast<const uint4*>(y_.get()),
          reinterpret_cast<const uint4*>(y_.get()) + units, reinterpret_cast<uint4*>(x_.get()));
    });
    line("gated activation 8192x14336", 6.0 * rows * 14336, graph.MedianMs());
  }

  const std::vector<std::string> folders_;
  DeviceBuffer<uint8_t> weights_, x_, codes_, y_;
  DeviceBuffer<float> residual_, x_scales_;
  DeviceBuffer<uint8_t> workspace_;
  double bandwidth_ = 0;
};

inline int BenchGemm(const std::vector<std::string>& folders) { return GemmBench(folders).Run(); }

}  // namespace tessera::check
