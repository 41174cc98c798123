// A backend: a kernel catalog plus the weight layouts its kernels read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/foundation/status.h"
#include "kernels/catalog.h"
#include "kernels/dtype.h"

namespace tessera::kernels {

// A lossless rearrangement of one tensor, made once and cached by (tensor, transform name).
struct WeightLayout {
  std::string transform;  // "cpu.tile16.v1"; empty: the canonical bytes are read as they are
  uint64_t bytes = 0;     // size of the rearranged form
};

// Thread-safe after construction.
class Backend {
 public:
  virtual ~Backend() = default;
  // "cpu/avx512", for logs, plans and `doctor`.
  [[nodiscard]] virtual std::string name() const = 0;
  [[nodiscard]] virtual const Catalog& catalog() const = 0;

  // The layout that LinearOp and EmbedOp read for a [out, in] weight. UNIMPLEMENTED by name where
  // the type or shape has no kernel (`in` must be a multiple of the type's block).
  [[nodiscard]] virtual StatusOr<WeightLayout> LinearLayout(DType dtype, uint64_t out,
                                                            uint64_t in) const = 0;
  // Rearranges canonical bytes (row-major [out, in] of `dtype`) into `packed` (layout.bytes).
  virtual void PackLinear(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical,
                          std::byte* packed) const = 0;

  // Scratch bytes a thread needs for the largest shapes named; see ExecContext.
  struct ScratchNeeds {
    uint64_t max_width = 0;  // widest Linear input or output
    uint64_t max_head_dim = 0;
    uint64_t max_vocab = 0;
    uint64_t max_rows = 0;  // rows a step
  };
  [[nodiscard]] virtual size_t ScratchBytes(const ScratchNeeds& needs) const = 0;
};

// The instruction sets of the CPU backend, widest first. kAuto takes the widest the machine has.
enum class CpuIsa : uint8_t { kAuto, kAvx512, kAvx2 };

// FAILED_PRECONDITION when the processor lacks `isa` (or lacks AVX2 and FMA altogether). kAvx512
// means AVX-512 F, BW, DQ, VL, VNNI.
[[nodiscard]] StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(CpuIsa isa);
// The sets that this processor has, widest first; empty on a processor without AVX2 and FMA.
[[nodiscard]] std::vector<CpuIsa> SupportedCpuIsas();
[[nodiscard]] const char* NameOf(CpuIsa isa);

}  // namespace tessera::kernels
