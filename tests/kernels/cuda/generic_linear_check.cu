// Checks the product that serves every weight type against float64; --bench times it.
#include <cuda_bf16.h>

#include "kernels/cuda/ops/generic_linear.h"
#include "kernels/cuda/ops/weight_decode.cuh"
#include "tests/kernels/cuda/check_util.cuh"
#include "tests/kernels/cuda/weight_reference.cuh"

namespace tessera::check {
namespace {

using namespace tessera::kernels;        // NOLINT(google-build-using-namespace)
using namespace tessera::kernels::cuda;  // NOLINT(google-build-using-namespace)

struct LinearCase {
  DType dtype;
  int rows, in, out;
  GenericEpilogue epilogue;
  bool extras;  // bias, addend, scattered rows
};

struct Problem {
  std::vector<uint16_t> x, addend;
  std::vector<float> bias, y_before;
  std::vector<int32_t> y_rows;
  std::vector<double> want, magnitude;
  int64_t x_stride, y_stride;
};

Problem MakeProblem(const LinearCase& c, const std::vector<double>& w, Rng& rng) {
  Problem p;
  p.x_stride = c.in + 8, p.y_stride = c.out + 3;
  p.x.resize(c.rows * p.x_stride);
  for (auto& v : p.x) v = Bf16Bits(rng.Normal());
  p.addend.resize(size_t(c.rows) * (c.out + 1));
  for (auto& v : p.addend) v = Bf16Bits(rng.Normal());
  p.bias.resize(c.out);
  for (float& v : p.bias) v = rng.Normal();
  p.y_before.resize(c.rows * p.y_stride);
  for (float& v : p.y_before) v = rng.Normal();
  for (int r = 0; r < c.rows; ++r) p.y_rows.push_back(c.rows - 1 - r);
  p.want.resize(size_t(c.rows) * c.out);
  p.magnitude.resize(p.want.size());
  std::vector<double> x(c.in);
  for (int r = 0; r < c.rows; ++r) {
    for (int k = 0; k < c.in; ++k) x[k] = BitsToFloat(p.x[r * p.x_stride + k]);
    const int to = c.extras ? p.y_rows[r] : r;
    for (int o = 0; o < c.out; ++o) {
      double sum = 0, magnitude = 0;
      for (int k = 0; k < c.in; ++k) {
        const double term = x[k] * w[size_t(o) * c.in + k];
        sum += term;
        magnitude += std::abs(term);
      }
      if (c.extras) sum += p.bias[o] + BitsToFloat(p.addend[size_t(r) * (c.out + 1) + o]);
      if (c.epilogue == GenericEpilogue::kResidual) sum += p.y_before[to * p.y_stride + o];
      p.want[size_t(to) * c.out + o] = sum;
      p.magnitude[size_t(to) * c.out + o] = magnitude + std::abs(sum);
    }
  }
  return p;
}

// 2^-16 of what was added up, and half a unit of a bf16 result; nothing between the rows touched.
bool Matches(const LinearCase& c, const Problem& p, const std::vector<uint8_t>& bytes) {
  const bool bf16 = c.epilogue == GenericEpilogue::kStore;
  for (int r = 0; r < c.rows; ++r) {
    for (int64_t o = 0; o < p.y_stride; ++o) {
      const size_t at = r * p.y_stride + o;
      float got;
      if (bf16) {
        got = BitsToFloat(uint16_t(bytes[2 * at] | bytes[2 * at + 1] << 8));
      } else {
        std::memcpy(&got, &bytes[4 * at], 4);
      }
      if (o >= c.out) {
        const bool kept =
            c.epilogue == GenericEpilogue::kResidual ? got == p.y_before[at] : std::isnan(got);
        if (!kept) return false;
        continue;
      }
      const double want = p.want[size_t(r) * c.out + o];
      const double bound =
          p.magnitude[size_t(r) * c.out + o] / 65536 + (bf16 ? std::abs(want) / 256 : 0.0) + 1e-30;
      if (!(std::abs(got - want) <= bound)) return false;
    }
  }
  return true;
}

void CheckCase(Report& report, const LinearCase& c, Rng& rng) {
  const auto weight = RandomWeight(c.dtype, c.out, c.in, rng);
  const Problem p = MakeProblem(c, DecodeReference(c.dtype, weight, c.out, c.in), rng);
  const DeviceBuffer<uint8_t> dw(weight);
  const DeviceBuffer<uint16_t> dx(p.x), da(p.addend);
  const DeviceBuffer<float> db(p.bias);
  const DeviceBuffer<int32_t> dr(p.y_rows);
  const bool bf16 = c.epilogue == GenericEpilogue::kStore;
  DeviceBuffer<uint8_t> y(p.y_before.size() * (bf16 ? 2 : 4));
  GenericLinearArgs args;
  args.dtype = c.dtype;
  args.weight = reinterpret_cast<const std::byte*>(dw.get());
  args.x = reinterpret_cast<const __nv_bfloat16*>(dx.get());
  args.x_stride = p.x_stride;
  args.y = y.get(), args.y_stride = p.y_stride;
  args.epilogue = c.epilogue;
  args.rows = c.rows, args.in = c.in, args.out = c.out;
  if (c.extras) {
    args.bias = db.get(), args.y_rows = dr.get();
    args.addend = reinterpret_cast<const __nv_bfloat16*>(da.get());
    args.addend_stride = c.out + 1;
  }
  const auto reset = [&] {
    y.Poison();
    if (c.epilogue == GenericEpilogue::kResidual) {
      CHECK_CUDA(
          cudaMemcpy(y.get(), p.y_before.data(), p.y_before.size() * 4, cudaMemcpyHostToDevice));
    }
  };
  const auto passes = [&] { return y.CanaryIntact() && Matches(c, p, y.Download()); };
  reset();
  CHECK_CUDA(cudaDeviceSynchronize());
  CHECK_CUDA(LaunchGenericLinear(args, nullptr));
  CHECK_CUDA(cudaDeviceSynchronize());
  const bool direct = passes();
  Graph graph([&](cudaStream_t s) { CHECK_CUDA(LaunchGenericLinear(args, s)); });
  reset();
  CHECK_CUDA(cudaDeviceSynchronize());
  graph.Run();
  const bool replayed = passes();
  static const char* const kEpilogues[] = {"bf16", "f32", "residual"};
  report.Case(direct && replayed, "linear %s %d x %d -> %d %s%s", TypeName(c.dtype), c.rows, c.in,
              c.out, kEpilogues[static_cast<int>(c.epilogue)], c.extras ? " bias addend rows" : "");
}

void CheckAll(Report& report) {
  Rng rng(11);
  const int rows[] = {1, 2, 3, 8, 9, 64, 131};
  const int outs[] = {1, 130, 67};
  for (const DType dtype : kWeightTypes) {
    int n = static_cast<int>(dtype);
    for (const int r : rows) {
      const int multiple = InMultiple(dtype);
      const int in = n % 3 == 0   ? multiple * 5
                     : n % 3 == 1 ? (2048 / multiple) * multiple
                                  : multiple;
      const auto epilogue = static_cast<GenericEpilogue>(n % 3);
      CheckCase(report, {dtype, r, in, outs[n / 3 % 3], epilogue, n % 2 == 0}, rng);
      ++n;
    }
    CheckCase(report, {dtype, 5, 2048, 257, GenericEpilogue::kStoreFloat, false}, rng);
    CheckCase(report, {dtype, 70, 2048, 257, GenericEpilogue::kStoreFloat, false}, rng);
  }
}

void Bench() {
  CopyBandwidth();  // the first one of a process is slow
  const double rate = CopyBandwidth();
  std::printf("%s, copy %.0f GB/s\n", DeviceName().c_str(), rate / 1e9);
  const int in = 4096, out = 14336;
  const size_t pool = size_t{1} << 30;
  DeviceBuffer<uint8_t> weights(pool);
  CHECK_CUDA(cudaMemset(weights.get(), 0x2c, pool));
  DeviceBuffer<uint16_t> x(size_t{2048} * in), y(size_t{2048} * out);
  x.Upload(std::vector<uint16_t>(x.size(), 0x3f80));
  for (const DType dtype : kWeightTypes) {
    const bool planes = HasPlanes(dtype);
    const size_t bytes = planes                  ? PlanesOf(dtype, out, in).bytes
                         : dtype == DType::kF32  ? size_t{4} * out * in
                         : dtype <= DType::kBF16 ? size_t{2} * out * in
                                                 : size_t(out) * in / 32 *
                                                       (dtype == DType::kQ8_0   ? 34
                                                        : dtype == DType::kQ4_0 ? 18
                                                                                : 20);
    const int copies = static_cast<int>(pool / ((bytes + 255) / 256 * 256));
    for (const int rows : {1, 8, 128, 2048}) {
      const int repeats = rows > 8 ? 2 : copies;
      Graph graph([&](cudaStream_t s) {
        for (int i = 0; i < repeats; ++i) {
          GenericLinearArgs args;
          args.dtype = dtype;
          args.weight =
              reinterpret_cast<const std::byte*>(weights.get() + i * ((bytes + 255) / 256 * 256));
          args.x = reinterpret_cast<const __nv_bfloat16*>(x.get()), args.x_stride = in;
          args.y = y.get(), args.y_stride = out;
          args.rows = rows, args.in = in, args.out = out;
          CHECK_CUDA(LaunchGenericLinear(args, s));
        }
      });
      const double us = graph.MedianMs(20) * 1e3 / repeats;
      std::printf("linear %-8s %5d rows %9.1f us  %5.1f %% of copy  %6.1f TFLOP/s\n",
                  TypeName(dtype), rows, us, 100 * double(bytes) / rate * 1e6 / us,
                  2.0 * rows * in * out / us * 1e-6);
    }
  }
}

}  // namespace
}  // namespace tessera::check

int main(int argc, char** argv) {
  using namespace tessera::check;  // NOLINT(google-build-using-namespace)
  if (argc > 1 && std::strcmp(argv[1], "--bench") == 0) {
    Bench();
    return 0;
  }
  Report report;
  CheckAll(report);
  return report.Finish();
}
