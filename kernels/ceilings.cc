#include "kernels/ceilings.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <memory>

#include "config/foundation/check.h"

namespace tessera::kernels {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kLine = 64;
constexpr uint64_t kHugePage = 2 << 20;
constexpr int kMaxStreams = 8;

double Elapsed(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

// Reads `lines` lines as `kStreams` runs side by side: hardware follows several at a time.
template <int kStreams>
__attribute__((target("avx2"))) void ReadLines(const std::byte* from, uint64_t lines) {
  const uint64_t run = lines / kStreams;
  for (uint64_t line = 0; line < run; ++line) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) {
      const auto* at =
          reinterpret_cast<const __m256i*>(from + (static_cast<uint64_t>(s) * run + line) * kLine);
      asm volatile("" : : "x"(_mm256_load_si256(at)), "x"(_mm256_load_si256(at + 1)));
    }
  }
}

using Read = void (*)(const std::byte*, uint64_t);
constexpr Read kReads[] = {&ReadLines<1>, &ReadLines<2>, &ReadLines<4>, &ReadLines<kMaxStreams>};

// So many chains of operations hide an instruction's latency on every processor with these sets.
// What a chain has reached passes through an empty asm statement, or the compiler would drop it.
constexpr int kChains = 10;

__attribute__((target("avx2,fma"))) void Avx2Float(uint64_t rounds) {
  __m256 sum[kChains] = {};
  const __m256 a = _mm256_set1_ps(0.5F), b = _mm256_set1_ps(0.25F);
  for (uint64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
    for (__m256& part : sum) {
      part = _mm256_fmadd_ps(a, b, part);
      asm volatile("" : "+x"(part));
    }
  }
}

__attribute__((target("avx2"))) void Avx2Int8(uint64_t rounds) {
  __m256i sum[kChains] = {};
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(-2), ones = _mm256_set1_epi16(1);
  for (uint64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
    for (__m256i& part : sum) {
      asm volatile("" : "+x"(a));  // or the products would be taken out of the loop
      part = _mm256_add_epi32(part, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
      asm volatile("" : "+x"(part));
    }
  }
}

__attribute__((target("avx512f"))) void Avx512Float(uint64_t rounds) {
  __m512 sum[kChains] = {};
  const __m512 a = _mm512_set1_ps(0.5F), b = _mm512_set1_ps(0.25F);
  for (uint64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
    for (__m512& part : sum) {
      part = _mm512_fmadd_ps(a, b, part);
      asm volatile("" : "+v"(part));
    }
  }
}

__attribute__((target("avx512f,avx512vnni"))) void Avx512Int8(uint64_t rounds) {
  __m512i sum[kChains] = {};
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-2);
  for (uint64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
    for (__m512i& part : sum) {
      part = _mm512_dpbusd_epi32(part, a, b);
      asm volatile("" : "+v"(part));
    }
  }
}

// Configures eight tiles of 16 rows of 64 bytes, zeros in all, and multiplies two of them into four
// others. In assembler: see cpu/simd/amx.h.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

void AmxInt8(uint64_t rounds) {
  const TileConfig config;
  asm volatile("ldtilecfg %0" : : "m"(config));
  for (uint64_t i = 0; i < rounds; ++i) {
    asm volatile(
        "tdpbssd %tmm6, %tmm4, %tmm0\n\ttdpbssd %tmm7, %tmm4, %tmm1\n\t"
        "tdpbssd %tmm6, %tmm5, %tmm2\n\ttdpbssd %tmm7, %tmm5, %tmm3");
  }
  asm volatile("tilerelease");
}

void AmxBf16(uint64_t rounds) {
  const TileConfig config;
  asm volatile("ldtilecfg %0" : : "m"(config));
  for (uint64_t i = 0; i < rounds; ++i) {
    asm volatile(
        "tdpbf16ps %tmm6, %tmm4, %tmm0\n\ttdpbf16ps %tmm7, %tmm4, %tmm1\n\t"
        "tdpbf16ps %tmm6, %tmm5, %tmm2\n\ttdpbf16ps %tmm7, %tmm5, %tmm3");
  }
  asm volatile("tilerelease");
}

struct Loop {
  CpuIsa isa;
  const char* name;
  void (*run)(uint64_t rounds);
  double ops;  // of a round
};
constexpr Loop kLoops[] = {
    {CpuIsa::kAmx, "int8", &AmxInt8, 4 * 16 * 16 * 64 * 2.0},
    {CpuIsa::kAmx, "bf16", &AmxBf16, 4 * 16 * 16 * 32 * 2.0},
    {CpuIsa::kAmx, "float32", &Avx512Float, kChains * 16 * 2.0},
    {CpuIsa::kAvx2, "int8", &Avx2Int8, kChains * 32 * 2.0},
    {CpuIsa::kAvx2, "float32", &Avx2Float, kChains * 8 * 2.0},
    {CpuIsa::kAvx512, "int8", &Avx512Int8, kChains * 64 * 2.0},
    {CpuIsa::kAvx512, "float32", &Avx512Float, kChains * 16 * 2.0},
};

// Rounds a second of all threads together: the best of a few short spells.
double RoundsPerSecond(ThreadPool& pool, void (*run)(uint64_t)) {
  constexpr uint64_t kRounds = 200'000;
  double best = 0;
  for (int spell = 0; spell < 8; ++spell) {
    const Clock::time_point begin = Clock::now();
    pool.Run([&](int) { run(kRounds); });
    best = std::max(best, static_cast<double>(kRounds) * pool.threads() / Elapsed(begin));
  }
  return best;
}

}  // namespace

double MeasureReadRate(ThreadPool& pool, uint64_t bytes) {
  const auto threads = static_cast<uint64_t>(pool.threads());
  const uint64_t lines = std::max<uint64_t>(1, bytes / kLine / threads / kMaxStreams) * kMaxStreams;
  const uint64_t size = (lines * threads * kLine + kHugePage - 1) / kHugePage * kHugePage;
  const std::unique_ptr<std::byte, decltype(&std::free)> data(
      static_cast<std::byte*>(std::aligned_alloc(kHugePage, size)), &std::free);
  TESSERA_CHECK(data != nullptr);
  // Page tables should not be what is measured.
  madvise(data.get(), size, MADV_HUGEPAGE);
  const auto share = [&](int thread) {
    return data.get() + static_cast<uint64_t>(thread) * lines * kLine;
  };
  // Whoever reads a page has touched it first, so that it lies in that thread's memory.
  pool.Run([&](int thread) { std::fill_n(share(thread), lines * kLine, std::byte{1}); });
  double best = 0;
  const Clock::time_point begin = Clock::now();
  for (int pass = 0; pass < 20 || Elapsed(begin) < 0.05; ++pass) {
    const Read read = kReads[static_cast<size_t>(pass) % std::size(kReads)];
    const Clock::time_point start = Clock::now();
    pool.Run([&](int thread) { read(share(thread), lines); });
    best = std::max(best, static_cast<double>(lines * threads * kLine) / Elapsed(start));
  }
  return best;
}

std::vector<ArithmeticPeak> MeasurePeaks(ThreadPool& pool, CpuIsa isa) {
  const std::vector<CpuIsa> have = SupportedCpuIsas();
  if (isa == CpuIsa::kAuto && !have.empty()) isa = have.front();
  std::vector<ArithmeticPeak> peaks;
  if (std::find(have.begin(), have.end(), isa) == have.end()) return peaks;
  for (const Loop& loop : kLoops) {
    if (loop.isa != isa) continue;
    peaks.push_back({loop.name, RoundsPerSecond(pool, loop.run) * loop.ops});
  }
  return peaks;
}

}  // namespace tessera::kernels
