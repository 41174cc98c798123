// y = epilogue(x W^T + bias + addend) for many rows, on cuBLASLt.
//
// Which product runs is the weight's type (and, for e4m3, the device):
//   kBF16        bf16 x bf16.
//   kF8Channel   e4m3 x e4m3 with a scale a row and a scale a channel, on sm_90 where out is a
//                multiple of 8 and in of 16. Rows are quantized here, or come quantized.
//   kF8Block128  e4m3 x e4m3 with a scale for each 128 of a row and for each 128 x 128 of the
//                weight, under the same conditions.
//   the rest     (int8, int4, e4m3 elsewhere) W is made bf16 in slices of output channels, then
//                bf16 x bf16.
// Accumulation is float32 in the tensor cores (e4m3 with a scale a row: their faster, shorter
// accumulator in GemmNumerics::kFast); an output is rounded once. bias is rounded to bf16 when y
// is bf16.
//
// Limits: in a multiple of 8 (int4: of its group) up to 65536, out up to 524288 (MissingGemm);
// rows any number. x and weight begin at multiples of 16 bytes. y (and the addend of a bf16 y) may
// lie anywhere, but where its first byte or its stride is no multiple of 16 bytes, or `y_rows` is
// given, the product passes through scratch and costs 10 to 30 % more.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "config/foundation/status.h"
#include "kernels/cuda/linear/product_kind.h"
#include "kernels/cuda/side_streams.h"
#include "kernels/dtype.h"

namespace tessera::kernels::cuda {

enum class GemmEpilogue : uint8_t {
  kStore,       // y = acc, bf16
  kStoreFloat,  // y = acc, float32
  kResidual,    // y += acc, float32
};

enum class GemmNumerics : uint8_t {
  kFast,
  // A row's bits do not depend on how many rows there are, nor on the rows beside it: no split of
  // the sum over `in`, and every algorithm is compared with one reference in Prepare, bit for bit
  // on random operands, before it is used. Run takes prepared shapes only.
  kRowInvariant,
};

// How the bytes of an int4 weight lie.
enum class Int4Layout : uint8_t {
  kCanonical,  // weight_planes.h
  kPacked,     // skinny_int4.h
};

// How Prepare chooses an algorithm for a shape and a number of rows.
enum class GemmSearch : uint8_t {
  kHeuristic,  // the library's first answer
  kTimed,      // up to 256 rows the fastest of its answers and our variants of them, timed on the
               // device with cold weights; beyond, as kHeuristic
};

// One product, all pointers on the device.
struct GemmArgs {
  DType dtype = DType::kBF16;
  int32_t out = 0;
  int32_t in = 0;
  int32_t rows = 0;
  const __nv_bfloat16* x = nullptr;   // [rows, in]; null where the codes are given
  const uint8_t* x_codes = nullptr;   // e4m3 [rows, in], read where GemmEngine::ReadsCodes; or null
  const float* x_scales = nullptr;    // [rows], with x_codes
  const std::byte* weight = nullptr;  // [out, in] row-major, or planes (weight_planes.h)
  Int4Layout int4_layout = Int4Layout::kCanonical;
  const float* bias = nullptr;            // [out] or null
  const __nv_bfloat16* addend = nullptr;  // [rows, addend_stride] or null
  int64_t addend_stride = 0;
  GemmEpilogue epilogue = GemmEpilogue::kStore;
  void* y = nullptr;                // [*, y_stride], bf16 or float32 (GemmEpilogue)
  int64_t y_stride = 0;             // elements
  const int32_t* y_rows = nullptr;  // row of y for each row of x, or null: the same row
};

struct GemmShape {
  DType dtype = DType::kBF16;
  int32_t out = 0;
  int32_t in = 0;
  GemmEpilogue epilogue = GemmEpilogue::kStore;
};

// "" where GemmEngine can run the product, else what is lacking, e.g. "in 100 (a multiple of 8)".
[[nodiscard]] std::string MissingGemm(DType dtype, int64_t out, int64_t in);

struct GemmOptions {
  int device = 0;
  GemmNumerics numerics = GemmNumerics::kFast;
  std::byte* workspace = nullptr;                // device memory, a multiple of 256
  size_t workspace_bytes = 0;                    // at least kGemmWorkspaceBytes
  std::vector<std::string> library_directories;  // searched for cuBLASLt first
};
inline constexpr size_t kGemmWorkspaceBytes = size_t{290} << 20;

class GemmPlanner;
struct ProductBuffers;

// One for each device and stream: products share the workspace, so they must follow one another.
// Not thread-safe. The caller makes `device` current.
class GemmEngine {
 public:
  // NOT_FOUND without cuBLASLt, FAILED_PRECONDITION for a device before sm_80, INVALID_ARGUMENT for
  // a workspace that is too small.
  [[nodiscard]] static StatusOr<std::unique_ptr<GemmEngine>> Create(const GemmOptions& options);
  ~GemmEngine();
  GemmEngine(const GemmEngine&) = delete;
  GemmEngine& operator=(const GemmEngine&) = delete;

  // Chooses algorithms for 1..max_rows rows, but for those that an earlier Prepare with a trial or
  // an Import chose. kTimed, and kRowInvariant always, allocate and use device memory (weights of
  // 256 MB or one weight, and a trial's x and y) and wait for the device, a tenth of a second or so
  // a shape. INTERNAL where no algorithm passes.
  [[nodiscard]] Status Prepare(const GemmShape& shape, int32_t max_rows, GemmSearch search);

  // What was chosen by trials, and what the library chose where it would not be tried.
  [[nodiscard]] std::vector<GemmAlgorithm> Export() const;
  // Takes choices of an engine that had the same device, driver, library and numerics; returns how
  // many the library refused, which are then as if never made.
  int Import(std::span<const GemmAlgorithm> algorithms);

  // Launches only: no allocation, no synchronisation, can be captured in a graph. A shape that was
  // not prepared is planned on the host at its first use (0.1 ms) by the heuristic.
  [[nodiscard]] Status Run(const GemmArgs& args, cudaStream_t stream);

  // Products of the same rows that do not need one another, as Run. Those whose bf16 weights and
  // outputs follow one another are one product (kFast). Others, with few rows, each leave
  // multiprocessors idle: they run together where none of them needs scratch.
  [[nodiscard]] Status RunTogether(std::span<const GemmArgs> products, cudaStream_t stream);

  // True where Run reads x_codes and x_scales when they are given.
  [[nodiscard]] bool ReadsCodes(DType dtype, int32_t out, int32_t in) const;

  // Path of the library that was loaded, and its version (major * 10000 + minor * 100 + patch).
  [[nodiscard]] std::string LibraryPath() const;
  [[nodiscard]] size_t LibraryVersion() const;

 private:
  struct Slice;
  struct Chunk;
  enum class Route : uint8_t { kBf16, kF8Outer, kF8Block, kDequantize };

  GemmEngine(const GemmOptions& options, int device_major, std::unique_ptr<GemmPlanner> planner,
             std::unique_ptr<SideStreams> sides);

  // The plain products that a shape is made of.
  [[nodiscard]] std::vector<ProductKind> KindsOf(const GemmShape& shape) const;

  [[nodiscard]] Route RouteOf(DType dtype, int32_t out, int32_t in) const;
  // Output channels made bf16 at once.
  [[nodiscard]] static int32_t SliceChannels(int32_t out, int32_t in);
  // The one product that these are, if their weights and outputs follow one another.
  [[nodiscard]] std::optional<GemmArgs> AsOne(std::span<const GemmArgs> products) const;
  // Whether the library alone makes y.
  [[nodiscard]] bool NeedsNoScratch(const GemmArgs& args) const;
  [[nodiscard]] Status RunNative(const GemmArgs& args, Route route, int lane, cudaStream_t stream);
  [[nodiscard]] Status RunDequantized(const GemmArgs& args, cudaStream_t stream);
  [[nodiscard]] Status RunSlice(const GemmArgs& args, const Slice& slice, cudaStream_t stream);
  [[nodiscard]] Status RunChunk(const GemmArgs& args, const Slice& slice, Chunk chunk,
                                cudaStream_t stream);
  [[nodiscard]] Status Launch(const ProductKind& kind, const ProductBuffers& buffers,
                              const Chunk& chunk, cudaStream_t stream);
  [[nodiscard]] Status StoreDirect(const GemmArgs& args, const Slice& slice, const Chunk& chunk,
                                   cudaStream_t stream);
  [[nodiscard]] Status StoreThroughScratch(const GemmArgs& args, const Slice& slice,
                                           const Chunk& chunk, cudaStream_t stream);

  const int device_major_;
  const GemmNumerics numerics_;
  std::unique_ptr<GemmPlanner> planner_;
  std::unique_ptr<SideStreams> sides_;
  std::byte* small_;        // bias as bf16, padded block scales
  std::byte* weights_;      // a slice of a weight as bf16
  std::byte* activations_;  // codes and scales of rows, then a product on its way to y
};

}  // namespace tessera::kernels::cuda
