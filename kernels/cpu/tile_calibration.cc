#include "kernels/cpu/tile_calibration.h"

#include <cpuid.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/micro.h"
#include "kernels/cpu/registry.h"
#include "kernels/memory.h"

namespace tessera::kernels::cpu {
namespace {

constexpr int32_t kIn = 1024, kOut = 768;
constexpr int32_t kTilesACall = 16;                    // a launch's calls have the same rows
constexpr uint64_t kWeightBytes = uint64_t{20} << 20;  // more than a second-level cache
constexpr int kRounds = 5;
constexpr int32_t kRowsARound = 128;  // fewer rows are multiplied with more weights

using Clock = std::chrono::steady_clock;

// Activations of the most rows, and weights one after the other: zeros, which take as long as
// others.
class Trial {
 public:
  Trial(DType dtype, std::shared_ptr<Buffer> weights)
      : weights_(std::move(weights)),
        tile_bytes_(static_cast<int64_t>(TileBytes(dtype, kIn))),
        q_(static_cast<size_t>(kMostRows) * kIn),
        scale_(static_cast<size_t>(kMostRows) * kIn / 32),
        sum_(static_cast<size_t>(kMostRows) * kIn / 16),
        y_(static_cast<size_t>(kMostRows) * kOut),
        scratch_(static_cast<size_t>(std::max(LinearScratchBytes(kIn), TileScratchBytes(kIn))) +
                 64) {}

  // Nanoseconds of `rows` rows, and others with other weights until kRowsARound are made.
  uint32_t Time(void (*run)(const LinearCall&), int32_t rows) {
    LinearCall call = {};
    call.q = q_.data();
    call.x_scale = scale_.data();
    call.x_sum = sum_.data();
    call.y = y_.data();
    call.y_stride = kOut;
    call.in = kIn;
    call.out = kOut;
    call.row_end = rows;
    call.tile_bytes = tile_bytes_;
    void* scratch = scratch_.data();
    size_t space = scratch_.size();
    call.scratch = static_cast<std::byte*>(std::align(64, space - 64, scratch, space));
    const Clock::time_point begin = Clock::now();
    for (int32_t made = 0; made < kRowsARound; made += rows) {
      call.weight = NextWeight();
      for (int32_t tile = 0; tile < kOut / kTileRows; tile += kTilesACall) {
        call.tile_begin = tile;
        call.tile_end = tile + kTilesACall;
        call.rows_kept = tile > 0 ? 1 : 0;
        run(call);
      }
    }
    const int64_t ns = std::chrono::nanoseconds(Clock::now() - begin).count();
    return static_cast<uint32_t>(std::clamp<int64_t>(ns, 1, 1'000'000'000));
  }

 private:
  static constexpr int32_t kMostRows = TileCosts::kRows.back();

  const std::byte* NextWeight() {
    const uint64_t bytes = static_cast<uint64_t>(tile_bytes_) * (kOut / kTileRows);
    if ((next_ + 1) * bytes > weights_->size()) next_ = 0;
    return weights_->data() + next_++ * bytes;
  }

  const std::shared_ptr<Buffer> weights_;
  const int64_t tile_bytes_;
  uint64_t next_ = 0;
  std::vector<int8_t> q_;
  std::vector<float> scale_;
  std::vector<int16_t> sum_;
  std::vector<float> y_;
  std::vector<std::byte> scratch_;
};

const LinearKernels& VectorsOf(DType dtype) {
  return FamilyOf(dtype) == LinearFamily::kBlocks32
             ? Micro<CpuIsa::kAmx>::Linear<LinearFamily::kBlocks32>()
             : Micro<CpuIsa::kAmx>::Linear<LinearFamily::kBlocks256>();
}

}  // namespace

TileCosts::Key ThisProcessor() {
  unsigned words[12] = {};
  bool named = true;
  for (unsigned i = 0; i < 3; ++i) {
    unsigned* const to = words + i * 4;
    named = named && __get_cpuid(0x80000002u + i, to, to + 1, to + 2, to + 3) != 0;
  }
  char name[sizeof(words) + 1] = {};
  if (named) std::memcpy(name, words, sizeof(words));
  std::string text(name);
  for (char& c : text) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  unsigned a = 0, b = 0, c = 0, d = 0;
  static_cast<void>(__get_cpuid(1, &a, &b, &c, &d));
  return {.processor = absl::StrCat(absl::StripAsciiWhitespace(text), " ", absl::Hex(a))};
}

StatusOr<TileCosts::Costs> MeasureTiles(DType dtype) {
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<Buffer> weights,
                           HostMemory().Allocate(kWeightBytes, "measuring products"));
  std::memset(weights->data(), 0, weights->size());
  Trial trial(dtype, std::move(weights));
  const auto type = static_cast<size_t>(dtype);
  TileCosts::Costs costs;
  for (size_t i = 0; i < costs.size(); ++i) {
    TileCosts::Cost& best = costs[i];
    for (int round = 0; round < kRounds; ++round) {
      const uint32_t vectors = trial.Time(VectorsOf(dtype).run[type], TileCosts::kRows[i]);
      const uint32_t tiles = trial.Time(kAmxLinear.run[type], TileCosts::kRows[i]);
      best.vectors_ns = round == 0 ? vectors : std::min(best.vectors_ns, vectors);
      best.tiles_ns = round == 0 ? tiles : std::min(best.tiles_ns, tiles);
    }
  }
  return costs;
}

}  // namespace tessera::kernels::cpu
