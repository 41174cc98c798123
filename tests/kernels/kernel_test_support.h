// Shared by the kernel tests: machines to run on, guarded buffers, random values, tolerances.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/block_format.h"
#include "kernels/cpu/cpu_context.h"
#include "kernels/exec_context.h"
#include "kernels/weight_codec.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels {

// |result - reference| <= relative * scale + absolute, where `scale` is the sum of the magnitudes
// that went into the result (or the reference itself for element-wise ops).
struct Tolerance {
  double relative;
  double absolute;
};
inline constexpr Tolerance kLinearTolerance = {4e-6, 1e-30};
inline constexpr Tolerance kNormTolerance = {2e-6, 1e-30};
inline constexpr Tolerance kActivationTolerance = {2e-6, 1e-9};
inline constexpr Tolerance kRopeTolerance = {3e-7, 1e-30};
inline constexpr Tolerance kAttentionTolerance = {6e-6, 1e-30};
// Over pages of bf16: of probabilities in bf16 (2^-8), and of exponentials (7.5e-5, above and
// below).
inline constexpr Tolerance kBf16AttentionTolerance = {4.1e-3, 1e-30};
inline constexpr Tolerance kLogprobTolerance = {1e-6, 4e-6};

inline void ExpectClose(double result, double reference, double scale, Tolerance tolerance,
                        const std::string& where) {
  const double bound = tolerance.relative * std::abs(scale) + tolerance.absolute;
  // Written so that a result that is not a number fails.
  EXPECT_TRUE(std::abs(result - reference) <= bound)
      << where << ": " << result << ", reference " << reference << ", allowed " << bound;
}

// `count` values between two guard zones, all bytes 0xff (not-a-number for floats) until written.
template <typename T>
class Guarded {
 public:
  explicit Guarded(size_t count) : count_(count), bytes_(2 * kGuard + count * sizeof(T), 0xff) {}
  ~Guarded() {
    for (size_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(bytes_[i], 0xff) << "write before the buffer";
      EXPECT_EQ(bytes_[bytes_.size() - 1 - i], 0xff) << "write past the buffer";
    }
  }
  T* data() { return reinterpret_cast<T*>(bytes_.data() + kGuard); }
  T& operator[](size_t i) { return data()[i]; }
  [[nodiscard]] size_t size() const { return count_; }
  [[nodiscard]] std::vector<T> values() { return std::vector<T>(data(), data() + count_); }

 private:
  static constexpr size_t kGuard = 256;
  size_t count_;
  std::vector<uint8_t> bytes_;
};

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float Normal(float deviation = 1.0f) {
    return std::normal_distribution<float>(0, deviation)(engine_);
  }
  int Int(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  std::vector<float> Floats(size_t count, float deviation = 1.0f) {
    std::vector<float> values(count);
    for (float& v : values) v = Normal(deviation);
    return values;
  }

 private:
  std::mt19937 engine_;
};

// A backend with a pool and scratch for small shapes.
struct Machine {
  Machine(CpuIsa isa, int threads)
      : backend(MakeCpuBackend(isa).value()),
        pool({.threads = threads}),
        context(pool,
                backend->ScratchBytes(
                    {.max_width = 4096, .max_head_dim = 512, .max_vocab = 60000, .max_rows = 512}),
                AllTiles()) {}

  // Tile registers for every product that can be made on them, where the set has them.
  static cpu::TileCosts AllTiles() {
    cpu::TileCosts costs;
    cpu::TileCosts::Costs faster;
    faster.fill({.vectors_ns = 2, .tiles_ns = 1});
    for (int i = 0; i < kWeightTypeCount; ++i) costs.Set(static_cast<DType>(i), faster);
    return costs;
  }

  template <typename Op>
  void Run(const typename Op::Desc& desc, const typename Op::Params& params) {
    const StatusOr<Kernel<Op>> kernel = backend->catalog().Find<Op>(desc);
    ASSERT_TRUE(kernel.ok()) << kernel.status();
    (*kernel)(context, params);
  }

  std::unique_ptr<Backend> backend;
  ThreadPool pool;
  cpu::CpuContext context;
};

// Tests take the instruction set as their parameter, so that a report names it.
class IsaTest : public ::testing::TestWithParam<CpuIsa> {};
#define TESSERA_EACH_ISA(suite)                                                 \
  INSTANTIATE_TEST_SUITE_P(Isa, suite, ::testing::ValuesIn(SupportedCpuIsas()), \
                           [](const ::testing::TestParamInfo<CpuIsa>& info) {   \
                             return std::string(NameOf(info.param));            \
                           })

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline const std::vector<DType> kAllTypes = [] {
  std::vector<DType> types;
  for (int i = 0; i < kWeightTypeCount; ++i) types.push_back(static_cast<DType>(i));
  return types;
}();

// Whether rows of `in` elements have whole blocks.
inline bool Fits(DType dtype, int64_t in) { return in % InfoOf(dtype).block_elements == 0; }

// Random canonical bytes of a weight, and what they mean.
struct TestWeight {
  DType dtype;
  int64_t out, in;
  std::vector<std::byte> canonical;
  std::vector<double> values;  // [out, in]
  std::vector<std::byte> packed;
};

inline void AppendHalf(std::vector<std::byte>& bytes, uint16_t bits) {
  bytes.push_back(static_cast<std::byte>(bits & 255));
  bytes.push_back(static_cast<std::byte>(bits >> 8));
}

// Random bytes are blocks of every format once their scales are ordinary numbers.
inline void FillBlocks(TestWeight& w, Random& random) {
  const BlockFormat format = BlockFormatOf(w.dtype);
  const auto out = static_cast<uint64_t>(w.out);
  const auto in = static_cast<uint64_t>(w.in);
  w.canonical.resize(StorageBytes(w.dtype, out, in).value());
  for (std::byte& byte : w.canonical) byte = static_cast<std::byte>(random.Int(0, 255));
  for (uint64_t at = 0; at < w.canonical.size(); at += format.bytes) {
    const uint16_t d = F32ToF16(random.Normal(0.02f));
    const uint16_t m = F32ToF16(random.Normal(0.1f));
    if (format.scale_bytes == 2) {
      std::memcpy(&w.canonical[at + format.scale_at], &d, 2);
    } else {
      w.canonical[at + format.scale_at] = static_cast<std::byte>(random.Int(116, 124));
    }
    if (format.has_min()) std::memcpy(&w.canonical[at + format.min_at], &m, 2);
  }
  std::vector<float> row(in);
  for (uint64_t r = 0; r < out; ++r) {
    DecodeRow(w.dtype, out, in, w.canonical.data(), r, row.data());
    w.values.insert(w.values.end(), row.begin(), row.end());
  }
}

// A weight whose codes, scales and zeros are planes.
inline void FillPlanes(TestWeight& w, Random& random) {
  const WeightPlanes planes =
      PlanesOf(w.dtype, static_cast<uint64_t>(w.out), static_cast<uint64_t>(w.in));
  w.canonical.resize(planes.bytes);
  const bool int4 = InfoOf(w.dtype).block_elements > 1;
  for (uint64_t i = 0; i < planes.codes_bytes; ++i) {
    int code = random.Int(0, 255);
    if (!int4 && w.dtype != DType::kI8Channel && (code & 0x7f) == 0x7f) code = 0;
    w.canonical[i] = static_cast<std::byte>(code);
  }
  for (uint64_t i = 0; i < planes.scales_bytes; i += int4 ? 2 : 4) {
    const float scale = random.Normal(0.02f);
    const uint16_t half = F32ToF16(scale);
    std::memcpy(&w.canonical[planes.scales_offset + i],
                int4 ? static_cast<const void*>(&half) : &scale, int4 ? 2 : 4);
  }
  for (uint64_t i = 0; i < planes.zeros_bytes; ++i) {
    w.canonical[planes.zeros_offset + i] = static_cast<std::byte>(random.Int(0, 15));
  }
  const int64_t group = ScaleGroup(w.dtype) == 0 ? w.in : ScaleGroup(w.dtype);
  const int64_t groups = (w.in + group - 1) / group;
  for (int64_t i = 0; i < w.out * w.in; ++i) {
    const int64_t row = w.dtype == DType::kF8Block128 ? i / w.in / 128 : i / w.in;
    const auto at = static_cast<uint64_t>(row * groups + i % w.in / group);
    const auto byte = static_cast<uint8_t>(w.canonical[static_cast<uint64_t>(int4 ? i / 2 : i)]);
    float scale = 0;
    if (!int4) std::memcpy(&scale, &w.canonical[planes.scales_offset + at * 4], 4);
    double code = w.dtype == DType::kI8Channel ? static_cast<int8_t>(byte) : F8E4M3ToF32(byte);
    if (int4) {
      uint16_t half;
      std::memcpy(&half, &w.canonical[planes.scales_offset + at * 2], 2);
      scale = F16ToF32(half);
      const int zero =
          planes.zeros_bytes == 0 ? 8 : static_cast<int>(w.canonical[planes.zeros_offset + at]);
      code = (i % 2 == 0 ? byte & 15 : byte >> 4) - zero;
    }
    w.values.push_back(scale * code);
  }
}

inline TestWeight MakeWeight(const Backend& backend, DType dtype, int64_t out, int64_t in,
                             Random& random) {
  TestWeight w{dtype, out, in, {}, {}, {}};
  const int64_t count = out * in;
  if (HasPlanes(dtype)) FillPlanes(w, random);
  if (IsBlockFormat(dtype)) FillBlocks(w, random);
  while (static_cast<int64_t>(w.values.size()) < count) {
    const float value = random.Normal();
    if (dtype == DType::kF32) {
      const auto* bytes = reinterpret_cast<const std::byte*>(&value);
      w.canonical.insert(w.canonical.end(), bytes, bytes + 4);
      w.values.push_back(value);
    } else {
      const bool f16 = dtype == DType::kF16;
      const uint16_t bits = f16 ? F32ToF16(value) : F32ToBF16(value);
      AppendHalf(w.canonical, bits);
      w.values.push_back(f16 ? F16ToF32(bits) : BF16ToF32(bits));
    }
  }
  const auto layout =
      backend.LinearLayout(dtype, static_cast<uint64_t>(out), static_cast<uint64_t>(in));
  w.packed.resize(layout.value().bytes);
  backend.PackLinear(dtype, static_cast<uint64_t>(out), static_cast<uint64_t>(in),
                     w.canonical.data(), w.packed.data());
  return w;
}

// Rows on the int8 grid.
struct TestRows {
  TestRows(Machine& machine, std::vector<float> values, int32_t rows_in, int32_t width_in)
      : x(std::move(values)), q(x.size()), scale(x.size() / 32), sum(x.size() / 16) {
    if (width_in % 32 != 0) return;
    machine.Run<QuantizeRowsOp>({.width = width_in},
                                {.x = x.data(), .out = Grid(), .rows = rows_in, .width = width_in});
  }
  QuantizedRows Grid() { return {q.data(), scale.data(), sum.data()}; }
  Activation View() { return {x.data(), Grid()}; }

  std::vector<float> x;
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int16_t> sum;
};

}  // namespace tessera::kernels
