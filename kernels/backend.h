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
#include "kernels/memory.h"
#include "kernels/ops/attention_plan.h"
#include "kernels/ops/linear.h"
#include "kernels/synthetic.h"

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

  // A packed weight may be cut into packed weights at multiples of this many rows: those of rows
  // [a, b) are its bytes from a / out to b / out. 0: nowhere.
  [[nodiscard]] virtual uint64_t LinearRowStep() const { return 0; }

  // Where weights, pages and activations live.
  [[nodiscard]] virtual Memory& memory() const { return HostMemory(); }
  // Whether Generate makes synthetic tensors in memory() itself; else the host makes them.
  [[nodiscard]] virtual bool generates() const { return false; }
  // Writes the canonical bytes of `tensor` (synthetic_tensor.h) to `to` in memory(); there when it
  // returns.
  [[nodiscard]] virtual Status Generate(const SyntheticTensor& tensor, std::byte* to) const {
    return absl::UnimplementedError("this backend does not make synthetic tensors");
  }
  // Bytes of an element of activations (ops/activation.h).
  [[nodiscard]] virtual uint64_t activation_bytes() const { return 4; }
  enum class KvPages : uint8_t { kHeads, kLatents };
  // What a cache keeps keys and values in when nobody chose, beside weights of this type.
  [[nodiscard]] virtual DType KvDType(DType weight, KvPages /*pages*/) const {
    return IsFloatType(weight) ? DType::kF32 : DType::kF16;
  }
  // Whether the Linear of this type reads Activation::q8.
  [[nodiscard]] virtual bool ReadsQuantizedRows(DType weight) const {
    return WantsQuantizedRows(weight);
  }
  // What was measured to choose between kernels, for people; empty: nothing, or no choice.
  [[nodiscard]] virtual std::string DescribeCosts() const { return ""; }
  // Rows of a step that keep its kernels busy, where nobody chose.
  [[nodiscard]] virtual uint32_t batch_tokens() const { return 512; }
  // Rows of logits to make at a time.
  [[nodiscard]] virtual uint32_t logits_rows() const { return 64; }

  // The largest shapes that a context will see.
  struct ContextNeeds {
    uint64_t max_width = 0;  // widest Linear input or output
    uint64_t max_head_dim = 0;
    uint64_t max_vocab = 0;
    uint64_t max_rows = 0;                  // rows a step
    uint64_t max_sequences = 0;             // of one step
    std::vector<AttentionShape> attention;  // all that occur
    std::vector<LinearGroup> products;
    bool deterministic = false;  // numerics other than kFast will be asked for
  };
  // Scratch bytes a thread of the host needs; see ExecContext.
  [[nodiscard]] virtual size_t ScratchBytes(const ContextNeeds& needs) const = 0;
  // RESOURCE_EXHAUSTED when the device has no room for the kernels' scratch.
  [[nodiscard]] virtual StatusOr<std::unique_ptr<ExecContext>> MakeContext(
      ThreadPool& pool, const ContextNeeds& needs) const {
    return std::make_unique<ExecContext>(pool, ScratchBytes(needs));
  }
};

// The CUDA devices that the driver shows, one a line of text; empty without a driver or in a build
// without CUDA.
[[nodiscard]] std::vector<std::string> CudaDevices();
// UNIMPLEMENTED in a build without CUDA, NOT_FOUND without that device, FAILED_PRECONDITION for one
// of another compute capability than 8.0 to 9.0. What was measured of its kernels is kept in
// `costs_file` from one process to the next; empty: it is measured by each.
[[nodiscard]] StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(int device,
                                                                 std::string costs_file = {});

// The instruction sets of the CPU backend, widest first. kAuto takes what the environment's
// TESSERA_CPU_ISA names, else the widest the machine has. kAvx512 means AVX-512 F, BW, DQ, VL,
// VNNI; kAmx these and AMX's tiles of int8 and bf16.
enum class CpuIsa : uint8_t { kAuto, kAmx, kAvx512, kAvx2 };

// FAILED_PRECONDITION when the processor lacks `isa` (or lacks AVX2 and FMA altogether, or the
// kernel does not let this process use tiles), INVALID_ARGUMENT when TESSERA_CPU_ISA names none.
// `costs_file` as of MakeCudaBackend; kAmx alone has a choice.
[[nodiscard]] StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(CpuIsa isa,
                                                                std::string costs_file = {});
// The sets that this processor has, widest first; empty on a processor without AVX2 and FMA. Asks
// the kernel for the use of tiles, for the whole process.
[[nodiscard]] std::vector<CpuIsa> SupportedCpuIsas();
[[nodiscard]] const char* NameOf(CpuIsa isa);

}  // namespace tessera::kernels
