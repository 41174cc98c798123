// One cuBLASLt product and the algorithm that runs it. Internal to linear/gemm*.
//
// In the library's column-major words the weight is A (transposed), the rows are B, and `d` has
// `out` rows and a column for each row of x.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "config/foundation/status.h"
#include "kernels/cuda/linear/cublaslt_api.h"
#include "kernels/cuda/linear/gemm.h"
#include "kernels/cuda/linear/product_kind.h"

namespace tessera::kernels::cuda {

// Device pointers, each at a multiple of 16 bytes; strides in elements, multiples of 16 bytes.
struct ProductBuffers {
  const void* weight = nullptr;
  const float* weight_scales = nullptr;
  const void* x = nullptr;
  const float* x_scales = nullptr;
  const void* bias = nullptr;
  const void* c = nullptr;
  int64_t c_stride = 0;
  void* d = nullptr;
  int64_t d_stride = 0;
  int lane = 0;  // whose workspace: products of different lanes may run together
};

// Products of more rows are limited by the card's power, which a short trial does not show: there
// the library's own order is better than a stopwatch.
inline constexpr int32_t kTimedRows = 256;

// Chooses and remembers an algorithm for each kind and bucket of rows, and launches it.
class GemmPlanner {
 public:
  // Owns a library handle for the current device; `workspace` (of `workspace_bytes` for each lane)
  // stays the caller's.
  static StatusOr<std::unique_ptr<GemmPlanner>> Create(const CublasLt& library,
                                                       GemmNumerics numerics, std::byte* workspace,
                                                       size_t workspace_bytes);
  ~GemmPlanner();
  GemmPlanner(const GemmPlanner&) = delete;
  GemmPlanner& operator=(const GemmPlanner&) = delete;

  // The number of rows whose algorithm serves `rows`: the next multiple of a quarter of the power
  // of two below (of 32 up to 128, of 64 up to 512).
  [[nodiscard]] static int32_t RowBucket(int32_t rows);

  // The algorithm for `rows` rows, or null where the library has none (kRowInvariant: or none was
  // kept). A kind with an addition or a bias follows its plain kind where that algorithm can.
  [[nodiscard]] const cublasLtMatmulAlgo_t* Find(const ProductKind& kind, int32_t rows);
  // Makes `algorithm` the one for a kind and a bucket.
  void Keep(const ProductKind& kind, int32_t bucket, const cublasLtMatmulAlgo_t& algorithm);
  // Whether the bucket's algorithm came from Keep or Import; one that Find chose may be replaced by
  // a better.
  [[nodiscard]] bool Keeps(const ProductKind& kind, int32_t bucket) const;

  // What was kept, and the library's own choices for more than kTimedRows: they would not be timed
  // either.
  [[nodiscard]] std::vector<GemmAlgorithm> Export() const;
  // Keeps it; false where the library refuses it, or it splits the sum and may not.
  [[nodiscard]] bool Import(const GemmAlgorithm& algorithm);

  // The library's answers, best first, then (up to kTimedRows, where its cost model is weak)
  // variants in tile, cluster and split, each once. kRowInvariant: none that splits the sum. Those
  // that a trial times or compares are as Import restores them from what Export says, so that what
  // was tried is what a later engine runs.
  [[nodiscard]] std::vector<cublasLtMatmulAlgo_t> Candidates(const ProductKind& kind, int32_t rows);

  [[nodiscard]] cublasStatus_t Launch(const ProductKind& kind, int32_t rows,
                                      const ProductBuffers& buffers,
                                      const cublasLtMatmulAlgo_t& algorithm, cudaStream_t stream);

  // Launches, and keeps for the bucket, an algorithm that takes these very rows and strides: for
  // one that was chosen for the bucket and refuses them.
  [[nodiscard]] cublasStatus_t Replace(const ProductKind& kind, int32_t rows,
                                       const ProductBuffers& buffers, cudaStream_t stream);

  [[nodiscard]] const CublasLt& library() const { return library_; }
  [[nodiscard]] GemmNumerics numerics() const { return numerics_; }

 private:
  struct Descriptors;
  struct Key {
    ProductKind kind;
    int32_t bucket;
    auto operator<=>(const Key&) const = default;
  };

  struct Plan {
    std::optional<cublasLtMatmulAlgo_t> algorithm;
    bool kept = false;
  };

  GemmPlanner(const CublasLt& library, cublasLtHandle_t handle, GemmNumerics numerics,
              std::byte* workspace, size_t workspace_bytes);

  [[nodiscard]] Descriptors Describe(const ProductKind& kind, int32_t rows,
                                     const ProductBuffers& buffers) const;
  // Answers of the library; none splits the sum but where it may.
  enum class Sums : uint8_t { kWhole, kMaySplit };
  [[nodiscard]] Sums sums() const {
    return numerics_ == GemmNumerics::kRowInvariant ? Sums::kWhole : Sums::kMaySplit;
  }
  [[nodiscard]] std::vector<cublasLtMatmulAlgo_t> Heuristic(Descriptors& descriptors, int count,
                                                            Sums sums) const;
  [[nodiscard]] bool Runs(Descriptors& descriptors, const cublasLtMatmulAlgo_t& algorithm) const;
  [[nodiscard]] AlgorithmConfig ConfigOf(const cublasLtMatmulAlgo_t& algorithm) const;
  // The algorithm that ConfigOf describes, or nothing where the library refuses it.
  [[nodiscard]] std::optional<cublasLtMatmulAlgo_t> Restore(const ProductKind& kind, int32_t rows,
                                                            const AlgorithmConfig& config) const;
  [[nodiscard]] bool SplitsSum(const cublasLtMatmulAlgo_t& algorithm) const;
  void AddVariants(Descriptors& descriptors, const cublasLtMatmulAlgo_t& first,
                   std::vector<cublasLtMatmulAlgo_t>& algorithms) const;
  [[nodiscard]] std::optional<cublasLtMatmulAlgo_t> Choose(const ProductKind& kind, int32_t bucket);

  const CublasLt library_;
  const cublasLtHandle_t handle_;
  const GemmNumerics numerics_;
  std::byte* const workspace_;
  const size_t workspace_bytes_;
  std::map<Key, Plan> plans_;
};

}  // namespace tessera::kernels::cuda
