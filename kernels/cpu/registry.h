// How a kernel of the CPU backend enters the catalog: one file in cpu/ops with Register_<name>, and
// its word in kernels/CMakeLists.txt.
#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/micro.h"

namespace tessera::kernels::cpu {

// The arithmetic of one instruction set, chosen when a driver is instantiated: that of AVX-512 is
// part of kAmx too, and all of it where tiles add nothing.
template <CpuIsa isa>
struct Micro {
  static constexpr bool kWide = isa != CpuIsa::kAvx2;
  template <LinearFamily family>
  static constexpr const LinearKernels& Linear() {
    if (family == LinearFamily::kBlocks32) {
      return kWide ? kAvx512LinearBlocks32 : kAvx2LinearBlocks32;
    }
    if (family == LinearFamily::kBlocks256) {
      return kWide ? kAvx512LinearBlocks256 : kAvx2LinearBlocks256;
    }
    return kWide ? kAvx512Linear : kAvx2Linear;
  }
  static constexpr const AttentionKernels& kAttention = kWide ? kAvx512Attention : kAvx2Attention;
  static constexpr const LatentKernels& kLatent = kWide ? kAvx512Latent : kAvx2Latent;
  static constexpr const ExpertKernels& kExpert = kWide ? kAvx512Expert : kAvx2Expert;
  static constexpr const RowKernels& kRow = kWide ? kAvx512Row : kAvx2Row;
  static constexpr const SampleKernels& kSample = kWide ? kAvx512Sample : kAvx2Sample;
};

class Registry {
 public:
  Registry(Catalog& catalog, CpuIsa isa) : catalog_(catalog), isa_(isa) {}

  // Adds the driver that fits the instruction set; `missing` as in KernelEntry. `amx` is null for
  // an op that has no use for tiles.
  template <typename Op>
  void Add(const char* name, std::string (*missing)(const typename Op::Desc&),
           typename Kernel<Op>::RunFn avx512, typename Kernel<Op>::RunFn avx2,
           typename Kernel<Op>::RunFn amx = nullptr) {
    typename Kernel<Op>::RunFn run = isa_ == CpuIsa::kAvx2 ? avx2 : avx512;
    if (isa_ == CpuIsa::kAmx && amx != nullptr) run = amx;
    catalog_.Add(KernelEntry<Op>{.kernel = {.run = run, .name = name}, .missing = missing});
  }

 private:
  Catalog& catalog_;
  CpuIsa isa_;
};

// Attention of one launch with the arithmetic of `kernels`.
void RunAttention(ExecContext& context, const AttentionOp::Params& params,
                  const AttentionKernels& kernels);

// Of a thread, heads of up to `head_dim`.
[[nodiscard]] size_t AttentionScratchBytes(uint64_t head_dim);

// Generated from the list of names.
void RegisterCpuKernels(Registry& registry);

// "dtype Q8_0" when a KV format has no kernel, else empty.
[[nodiscard]] std::string MissingKv(const KvFormat& kv);
// The same for the shapes of latent attention.
[[nodiscard]] std::string MissingLatent(const LatentShape& shape);

}  // namespace tessera::kernels::cpu
