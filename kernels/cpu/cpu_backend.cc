// The CPU backend: which instruction set, which kernels, which weight layout.
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/environment.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_context.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/ops/sample_row.h"
#include "kernels/cpu/registry.h"
#include "kernels/cpu/tile_calibration.h"
#include "kernels/kept_costs.h"

namespace tessera::kernels {
namespace {

// Clang's __builtin_cpu_supports does not know this name.
bool HasF16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
}

bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

// The kernel saves tiles (18) only for a process that has asked for it; 1 << 17 is their setting.
bool HasAmx() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  constexpr uint64_t kTileData = 18, kEnabled = (uint64_t{1} << 17) | (uint64_t{1} << kTileData);
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!HasAvx512() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kBf16) == 0 || (d & kTile) == 0 || (d & kInt8) == 0) return false;
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & kEnabled) != kEnabled) return false;
  static const bool allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return allowed;
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(CpuIsa isa, std::string costs_file) : isa_(isa), costs_(std::move(costs_file)) {
    cpu::Registry registry(catalog_, isa);
    cpu::RegisterCpuKernels(registry);
  }

  std::string name() const override { return absl::StrCat("cpu/", NameOf(isa_)); }
  const Catalog& catalog() const override { return catalog_; }

  StatusOr<WeightLayout> LinearLayout(DType dtype, uint64_t out, uint64_t in) const override {
    const uint64_t tile = cpu::TileBytes(dtype, in);
    const uint64_t tiles = out / cpu::kTileRows + (out % cpu::kTileRows != 0 ? 1 : 0);
    uint64_t bytes = 0;
    if (tile == 0 || out == 0 || in > INT32_MAX || out > INT32_MAX ||
        __builtin_mul_overflow(tiles, tile, &bytes)) {
      return Error(
          absl::StatusCode::kUnimplemented,
          {.what = absl::StrCat("no CPU layout for a ", InfoOf(dtype).name, " weight [", out, ", ",
                                in, "]"),
           .why = absl::StrCat("rows and columns must be 1..2^31-1 and columns a multiple of ",
                               InfoOf(dtype).block_elements),
           .fix = "store this tensor as F16 or F32"});
    }
    return WeightLayout{.transform = cpu::kTile16, .bytes = bytes};
  }

  void PackLinear(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical,
                  std::byte* packed) const override {
    cpu::PackTile16(dtype, out, in, canonical, packed);
  }

  // Tiles multiply bf16; latents are not read by tiles.
  DType KvDType(DType weight, KvPages pages) const override {
    const bool tiles = isa_ == CpuIsa::kAmx && pages == KvPages::kHeads && !IsFloatType(weight);
    return tiles ? DType::kBF16 : Backend::KvDType(weight, pages);
  }

  uint64_t LinearRowStep() const override { return cpu::kTileRows; }

  size_t ScratchBytes(const ContextNeeds& needs) const override {
    const size_t attention = cpu::AttentionScratchBytes(needs.max_head_dim);
    // A row of a table that is added to another.
    const size_t row = needs.max_width * sizeof(float);
    const auto width = static_cast<int64_t>(needs.max_width);
    const auto linear = static_cast<size_t>(cpu::LinearScratchBytes(width));
    const size_t tiles = isa_ == CpuIsa::kAmx ? TileScratch(width) : 0;
    return std::max({attention, row, linear, tiles, cpu::SampleScratchBytes(needs.max_vocab)});
  }

  StatusOr<std::unique_ptr<ExecContext>> MakeContext(ThreadPool& pool,
                                                     const ContextNeeds& needs) const override {
    if (isa_ != CpuIsa::kAmx) return Backend::MakeContext(pool, needs);
    const std::lock_guard lock(mutex_);
    costs_.Load(cpu::ThisProcessor());
    for (const LinearGroup& group : needs.products) {
      if (!cpu::TakesTiles(group.weight) || costs_.table.Has(group.weight)) continue;
      TESSERA_ASSIGN_OR_RETURN(const cpu::TileCosts::Costs costs, cpu::MeasureTiles(group.weight));
      costs_.table.Set(group.weight, costs);
    }
    costs_.Save(cpu::ThisProcessor());
    return std::unique_ptr<ExecContext>(
        std::make_unique<cpu::CpuContext>(pool, ScratchBytes(needs), costs_.table));
  }

  std::string DescribeCosts() const override {
    if (isa_ != CpuIsa::kAmx) return "";
    const std::lock_guard lock(mutex_);
    costs_.Load(cpu::ThisProcessor());
    return costs_.table.Describe();
  }

 private:
  // Of rows of up to `width`: narrower ones may come in larger blocks.
  static size_t TileScratch(int64_t width) {
    return static_cast<size_t>(std::max(cpu::TileScratchBytes(width),
                                        cpu::TileScratchBytes(std::min<int64_t>(width, 4096))));
  }

  CpuIsa isa_;
  Catalog catalog_;
  mutable std::mutex mutex_;
  mutable KeptCosts<cpu::TileCosts> costs_;  // guarded by mutex_
};

}  // namespace

namespace cpu {

std::string MissingKv(const KvFormat& kv) {
  if (!IsFloatType(kv.dtype)) return absl::StrCat("kv dtype ", InfoOf(kv.dtype).name);
  if (kv.kv_heads == 0 || kv.head_dim == 0) return "kv_heads or head_dim 0";
  if (kv.latent) return "a latent plane";
  return "";
}

}  // namespace cpu

const char* NameOf(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAmx:
      return "amx";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAuto:
      break;
  }
  return "auto";
}

std::vector<CpuIsa> SupportedCpuIsas() {
  std::vector<CpuIsa> isas;
  if (HasAmx()) isas.push_back(CpuIsa::kAmx);
  if (HasAvx512()) isas.push_back(CpuIsa::kAvx512);
  if (HasAvx2()) isas.push_back(CpuIsa::kAvx2);
  return isas;
}

namespace {

constexpr char kIsaVariable[] = "TESSERA_CPU_ISA";

// What kAuto stands for, given the sets that the machine has.
StatusOr<CpuIsa> Automatic(const std::vector<CpuIsa>& isas) {
  const std::string named = EnvironmentVariable(kIsaVariable).value_or("auto");
  for (const CpuIsa each : {CpuIsa::kAmx, CpuIsa::kAvx512, CpuIsa::kAvx2}) {
    if (named == NameOf(each)) return each;
  }
  if (named == NameOf(CpuIsa::kAuto)) return isas.front();
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("no instruction set ", named),
                .where = kIsaVariable,
                .why = "the CPU backend has amx, avx512 and avx2",
                .fix = "name one of them, or auto"});
}

}  // namespace

StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(CpuIsa isa, std::string costs_file) {
  const std::vector<CpuIsa> isas = SupportedCpuIsas();
  if (isas.empty()) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 {.what = "this processor cannot run the CPU backend",
                  .why = "it lacks AVX2, FMA or F16C",
                  .fix = "use an x86-64 processor of 2015 or later"});
  }
  if (isa == CpuIsa::kAuto) {
    TESSERA_ASSIGN_OR_RETURN(isa, Automatic(isas));
  }
  if (std::find(isas.begin(), isas.end(), isa) == isas.end()) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 {.what = absl::StrCat("this processor has no ", NameOf(isa)),
                  .where = absl::StrCat(kIsaVariable, " or engine.isa"),
                  .why = "avx512 means AVX-512 F, BW, DQ, VL and VNNI; amx also AMX with int8 and "
                         "bf16, which the kernel must allow",
                  .fix = absl::StrCat("use auto or ", NameOf(isas.front()))});
  }
  return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(isa, std::move(costs_file)));
}

}  // namespace tessera::kernels
