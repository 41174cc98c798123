// Trial runs that choose algorithms for a GemmPlanner. Internal to linear/gemm*.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "config/foundation/status.h"
#include "kernels/cuda/linear/gemm_plan.h"

namespace tessera::kernels::cuda {

// Tries one plain kind (no addition, no bias) on random operands of its own; they are freed with
// the tuner. Waits for the device.
class GemmTuner {
 public:
  // RESOURCE_EXHAUSTED where the operands of `max_rows` rows do not fit the device's memory.
  static StatusOr<std::unique_ptr<GemmTuner>> Create(GemmPlanner& planner, const ProductKind& kind,
                                                     int32_t max_rows);
  ~GemmTuner();
  GemmTuner(const GemmTuner&) = delete;
  GemmTuner& operator=(const GemmTuner&) = delete;

  // Keeps an algorithm for each bucket up to max_rows that has none kept: the first candidate, or
  // the fastest (kTimed). kRowInvariant: only candidates that give each row the bits which one
  // reference algorithm gives it among kPeriod rows; INTERNAL where a bucket has none. A kind that
  // the library does not have keeps nothing.
  [[nodiscard]] Status Tune(GemmSearch search);

 private:
  // Rows of the trial's x repeat after so many, so that every row has one right answer.
  static constexpr int32_t kPeriod = 256;

  struct Trial {
    const cublasLtMatmulAlgo_t* algorithm;
    float ms;
    cudaGraphExec_t graph = nullptr;
  };

  GemmTuner(GemmPlanner& planner, const ProductKind& kind, int32_t max_rows);

  [[nodiscard]] Status Allocate();
  // The bucket of rows [first, last].
  [[nodiscard]] Status TuneBucket(int32_t first, int32_t last, GemmSearch search);
  // Makes the bits that rows must have, by the first algorithm that runs.
  [[nodiscard]] Status MakeReference();
  [[nodiscard]] bool Launch(const cublasLtMatmulAlgo_t& algorithm, int32_t rows, int weight);
  [[nodiscard]] bool GivesReferenceBits(const cublasLtMatmulAlgo_t& algorithm, int32_t rows);
  // Runs with the fewest and the most rows of a bucket, and gives the bits that it must.
  [[nodiscard]] bool Passes(const cublasLtMatmulAlgo_t& algorithm, int32_t first, int32_t last);
  // With another weight each time, so that none is in the cache.
  [[nodiscard]] bool LaunchNext(const cublasLtMatmulAlgo_t& algorithm, int32_t rows);
  // How many products to time, `most` of small weights.
  [[nodiscard]] int Products(int most) const;
  // Milliseconds for one product with `last` rows by a short look, or nothing where it fails with
  // them or with `first`.
  [[nodiscard]] std::optional<float> Glance(const cublasLtMatmulAlgo_t& algorithm, int32_t first,
                                            int32_t last);
  // Some products as one graph, so that the host is out of the time; null where it fails.
  [[nodiscard]] cudaGraphExec_t Record(const cublasLtMatmulAlgo_t& algorithm, int32_t rows);
  // Milliseconds for a whole graph; infinity where it fails or is null.
  [[nodiscard]] float Replay(cudaGraphExec_t graph);
  // The fastest by a margin, else the first; null where none runs.
  [[nodiscard]] const cublasLtMatmulAlgo_t* Fastest(
      const std::vector<const cublasLtMatmulAlgo_t*>& candidates, int32_t first, int32_t last);
  [[nodiscard]] const cublasLtMatmulAlgo_t* Winner(std::vector<Trial>& trials, int32_t rows);

  GemmPlanner& planner_;
  const ProductKind kind_;
  const int32_t max_rows_;
  const int32_t d_stride_;  // elements
  size_t weight_bytes_ = 0;
  int weight_count_ =
      1;  // distinct weights, so that a timed product finds its own out of the cache
  int next_weight_ = 0;
  uint8_t* weights_ = nullptr;
  uint8_t* x_ = nullptr;
  uint8_t* d_ = nullptr;
  uint8_t* reference_ = nullptr;  // [kPeriod, d_stride]
  float* scales_ = nullptr;
  uint32_t* differences_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace tessera::kernels::cuda
