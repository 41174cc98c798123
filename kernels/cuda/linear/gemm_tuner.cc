#include "kernels/cuda/linear/gemm_tuner.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/linear/gemm_kernels.h"

namespace tessera::kernels::cuda {
namespace {

constexpr size_t kColdBytes = size_t{256} << 20;  // several times any cache
// A look at every candidate, and a longer one at a few. Of weights that outlast the cache by
// themselves a product or two say as much as many of small ones.
constexpr int kGlanceProducts = 4;
constexpr int kFinalProducts = 8;
constexpr int32_t kStartNanoseconds = 40'000;
constexpr size_t kFinalists = 4;
constexpr float kHopeful = 1.15f;  // of the best glance: more does not reach the final
constexpr int kRounds = 3;
constexpr float kWorthwhile = 0.97f;  // of the library's first answer: less is noise

size_t OperandBytes(ProductOperands operands) { return operands == ProductOperands::kBf16 ? 2 : 1; }
size_t OutputBytes(ProductOutput output) { return output == ProductOutput::kBf16 ? 2 : 4; }

}  // namespace

StatusOr<std::unique_ptr<GemmTuner>> GemmTuner::Create(GemmPlanner& planner,
                                                       const ProductKind& kind, int32_t max_rows) {
  std::unique_ptr<GemmTuner> tuner(new GemmTuner(planner, kind, GemmPlanner::RowBucket(max_rows)));
  TESSERA_RETURN_IF_ERROR(tuner->Allocate());
  return tuner;
}

GemmTuner::GemmTuner(GemmPlanner& planner, const ProductKind& kind, int32_t max_rows)
    : planner_(planner), kind_(kind), max_rows_(max_rows), d_stride_((kind.out + 7) / 8 * 8) {}

GemmTuner::~GemmTuner() {
  for (void* memory :
       std::initializer_list<void*>{weights_, x_, d_, reference_, scales_, differences_}) {
    cudaFree(memory);
  }
  if (begin_ != nullptr) cudaEventDestroy(begin_);
  if (end_ != nullptr) cudaEventDestroy(end_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Status GemmTuner::Allocate() {
  const size_t element = OperandBytes(kind_.operands);
  const size_t rows = std::max(max_rows_, kPeriod);
  weight_bytes_ = (size_t{element} * kind_.out * kind_.in + 255) / 256 * 256;
  weight_count_ = static_cast<int>(std::max<size_t>(1, kColdBytes / weight_bytes_));
  const size_t x_bytes = element * rows * kind_.in;
  const size_t row_bytes = OutputBytes(kind_.output) * d_stride_;
  const size_t groups = (static_cast<size_t>(kind_.in) + 127) / 128 + 3;
  const size_t scale_count =
      std::max<size_t>(groups * std::max<size_t>(rows, (kind_.out + 127) / 128), kind_.out);
  cudaError_t error = cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
  const auto attempt = [&](auto call) {
    if (error == cudaSuccess) error = call();
  };
  attempt([&] { return cudaEventCreate(&begin_); });
  attempt([&] { return cudaEventCreate(&end_); });
  attempt([&] { return cudaMalloc(&weights_, weight_bytes_ * weight_count_); });
  attempt([&] { return cudaMalloc(&x_, x_bytes); });
  attempt([&] { return cudaMalloc(&d_, row_bytes * rows); });
  attempt([&] { return cudaMalloc(&reference_, row_bytes * kPeriod); });
  attempt([&] { return cudaMalloc(&scales_, scale_count * sizeof(float)); });
  attempt([&] { return cudaMalloc(&differences_, sizeof(uint32_t)); });
  const TrialFormat format =
      kind_.operands == ProductOperands::kBf16 ? TrialFormat::kBf16 : TrialFormat::kE4m3;
  const size_t weights_bytes = weight_bytes_ * weight_count_;
  attempt([&] { return LaunchFillTrial(weights_, weights_bytes, weights_bytes, format, stream_); });
  attempt(
      [&] { return LaunchFillTrial(x_, x_bytes, element * kPeriod * kind_.in, format, stream_); });
  // One scale for all rows: their layout changes with the number of rows, the bits must not.
  attempt([&] {
    return LaunchFillTrial(scales_, scale_count * sizeof(float), sizeof(float), TrialFormat::kFloat,
                           stream_);
  });
  // The product leaves the padding of a row of d alone.
  attempt([&] { return cudaMemsetAsync(d_, 0, row_bytes * rows, stream_); });
  if (error == cudaSuccess) return absl::OkStatus();
  return Error(absl::StatusCode::kResourceExhausted,
               {.what = absl::StrCat("no device memory to try a product of ", kind_.out, " x ",
                                     kind_.in, " with ", rows, " rows"),
                .why = cudaGetErrorString(error),
                .fix = "prepare products before the cache takes its memory, or for fewer rows"});
}

bool GemmTuner::Launch(const cublasLtMatmulAlgo_t& algorithm, int32_t rows, int weight) {
  ProductBuffers buffers;
  buffers.weight = weights_ + weight_bytes_ * weight;
  buffers.weight_scales = scales_;
  buffers.x = x_;
  buffers.x_scales = scales_;
  buffers.d = d_;
  buffers.d_stride = d_stride_;
  return planner_.Launch(kind_, rows, buffers, algorithm, stream_) == CUBLAS_STATUS_SUCCESS;
}

Status GemmTuner::MakeReference() {
  for (const cublasLtMatmulAlgo_t& algorithm : planner_.Candidates(kind_, kPeriod)) {
    if (!Launch(algorithm, kPeriod, 0)) continue;
    const size_t bytes = OutputBytes(kind_.output) * d_stride_ * kPeriod;
    cudaMemcpyAsync(reference_, d_, bytes, cudaMemcpyDeviceToDevice, stream_);
    if (cudaStreamSynchronize(stream_) == cudaSuccess) return absl::OkStatus();
  }
  return Error(absl::StatusCode::kInternal,
               {.what = absl::StrCat("no algorithm for a product of ", kind_.out, " x ", kind_.in),
                .where = planner_.library().path,
                .fix = "use the fast numerics, or another version of cuBLASLt"});
}

bool GemmTuner::GivesReferenceBits(const cublasLtMatmulAlgo_t& algorithm, int32_t rows) {
  uint32_t differences = 1;
  const auto words = static_cast<int32_t>(OutputBytes(kind_.output) / 2 * d_stride_);
  return Launch(algorithm, rows, 0) &&
         cudaMemsetAsync(differences_, 0, sizeof(uint32_t), stream_) == cudaSuccess &&
         LaunchCountDifferences(reinterpret_cast<const uint16_t*>(d_),
                                reinterpret_cast<const uint16_t*>(reference_), rows, kPeriod, words,
                                differences_, stream_) == cudaSuccess &&
         cudaMemcpyAsync(&differences, differences_, sizeof(uint32_t), cudaMemcpyDeviceToHost,
                         stream_) == cudaSuccess &&
         cudaStreamSynchronize(stream_) == cudaSuccess && differences == 0;
}

bool GemmTuner::LaunchNext(const cublasLtMatmulAlgo_t& algorithm, int32_t rows) {
  next_weight_ = (next_weight_ + 1) % weight_count_;
  return Launch(algorithm, rows, next_weight_);
}

int GemmTuner::Products(int most) const {
  return static_cast<int>(std::clamp<size_t>(kColdBytes / weight_bytes_, 1, most));
}

std::optional<float> GemmTuner::Glance(const cublasLtMatmulAlgo_t& algorithm, int32_t first,
                                       int32_t last) {
  // In front runs one that is not timed: it loads the kernel. The host takes as long for a launch
  // as the device for a small product, so it gets a start.
  bool launched =
      LaunchNext(algorithm, first) && LaunchDelay(kStartNanoseconds, stream_) == cudaSuccess;
  if (!launched) return std::nullopt;
  const int products = Products(kGlanceProducts);
  cudaEventRecord(begin_, stream_);
  for (int i = 0; i < products; ++i) launched &= LaunchNext(algorithm, last);
  cudaEventRecord(end_, stream_);
  float ms = 0;
  if (cudaEventSynchronize(end_) != cudaSuccess || !launched ||
      cudaEventElapsedTime(&ms, begin_, end_) != cudaSuccess) {
    return std::nullopt;
  }
  return ms / static_cast<float>(products);
}

cudaGraphExec_t GemmTuner::Record(const cublasLtMatmulAlgo_t& algorithm, int32_t rows) {
  if (cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
    return nullptr;
  }
  bool launched = true;
  for (int i = 0; i < Products(kFinalProducts); ++i) launched &= LaunchNext(algorithm, rows);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  if (cudaStreamEndCapture(stream_, &graph) != cudaSuccess) return nullptr;
  if (launched && cudaGraphInstantiate(&executable, graph, 0) != cudaSuccess) executable = nullptr;
  cudaGraphDestroy(graph);
  return executable;
}

float GemmTuner::Replay(cudaGraphExec_t graph) {
  float ms = std::numeric_limits<float>::infinity();
  if (graph == nullptr) return ms;
  cudaGraphLaunch(graph, stream_);
  cudaEventRecord(begin_, stream_);
  cudaGraphLaunch(graph, stream_);
  cudaEventRecord(end_, stream_);
  if (cudaEventSynchronize(end_) == cudaSuccess) cudaEventElapsedTime(&ms, begin_, end_);
  return ms;
}

bool GemmTuner::Passes(const cublasLtMatmulAlgo_t& algorithm, int32_t first, int32_t last) {
  if (planner_.numerics() == GemmNumerics::kRowInvariant) {
    return GivesReferenceBits(algorithm, first) && GivesReferenceBits(algorithm, last);
  }
  return Launch(algorithm, first, 0) && Launch(algorithm, last, 0);
}

const cublasLtMatmulAlgo_t* GemmTuner::Fastest(
    const std::vector<const cublasLtMatmulAlgo_t*>& candidates, int32_t first, int32_t last) {
  std::vector<Trial> trials;
  for (const cublasLtMatmulAlgo_t* candidate : candidates) {
    const std::optional<float> ms = Glance(*candidate, first, last);
    if (ms.has_value()) trials.push_back({candidate, *ms});
  }
  if (trials.empty()) return nullptr;
  // The library's first answer is always a finalist.
  const auto by_time = [](const Trial& a, const Trial& b) { return a.ms < b.ms; };
  std::sort(trials.begin() + 1, trials.end(), by_time);
  const float best = std::min_element(trials.begin(), trials.end(), by_time)->ms;
  size_t finalists = 1;
  while (finalists < std::min(trials.size(), kFinalists) &&
         trials[finalists].ms < best * kHopeful) {
    ++finalists;
  }
  trials.resize(finalists);
  return trials.size() == 1 ? trials.front().algorithm : Winner(trials, last);
}

const cublasLtMatmulAlgo_t* GemmTuner::Winner(std::vector<Trial>& trials, int32_t rows) {
  for (Trial& trial : trials) {
    trial.graph = Record(*trial.algorithm, rows);
    trial.ms = std::numeric_limits<float>::infinity();
  }
  // The card's clock drifts, so they run in turns.
  for (int round = 0; round < kRounds; ++round) {
    for (Trial& trial : trials) trial.ms = std::min(trial.ms, Replay(trial.graph));
  }
  for (const Trial& trial : trials) {
    if (trial.graph != nullptr) cudaGraphExecDestroy(trial.graph);
  }
  const Trial& first = trials.front();
  const Trial& best = *std::min_element(trials.begin(), trials.end(),
                                        [](const Trial& a, const Trial& b) { return a.ms < b.ms; });
  return best.ms < first.ms * kWorthwhile ? best.algorithm : first.algorithm;
}

Status GemmTuner::TuneBucket(int32_t first, int32_t last, GemmSearch search) {
  if (planner_.Keeps(kind_, last)) return absl::OkStatus();
  const bool timed = search == GemmSearch::kTimed && last <= kTimedRows;
  const bool tries = !timed || planner_.numerics() == GemmNumerics::kRowInvariant;
  const std::vector<cublasLtMatmulAlgo_t> candidates = planner_.Candidates(kind_, last);
  std::vector<const cublasLtMatmulAlgo_t*> passed;
  for (const cublasLtMatmulAlgo_t& candidate : candidates) {
    if (!timed && !passed.empty()) break;
    if (!tries || Passes(candidate, first, last)) passed.push_back(&candidate);
  }
  const cublasLtMatmulAlgo_t* chosen = nullptr;
  if (!passed.empty()) chosen = timed ? Fastest(passed, first, last) : passed.front();
  if (chosen != nullptr) {
    planner_.Keep(kind_, last, *chosen);
  } else if (planner_.numerics() == GemmNumerics::kRowInvariant) {
    return Error(absl::StatusCode::kInternal,
                 {.what = absl::StrCat("no algorithm keeps the bits of a row in a product of ",
                                       kind_.out, " x ", kind_.in, " with ", last, " rows"),
                  .where = planner_.library().path,
                  .fix = "use the fast numerics, or another version of cuBLASLt"});
  }
  return absl::OkStatus();
}

Status GemmTuner::Tune(GemmSearch search) {
  if (planner_.numerics() == GemmNumerics::kRowInvariant) TESSERA_RETURN_IF_ERROR(MakeReference());
  for (int32_t rows = 1; rows <= max_rows_;) {
    const int32_t bucket = GemmPlanner::RowBucket(rows);
    // Products with block scales have rows in fours.
    const int32_t first = kind_.operands == ProductOperands::kF8Block ? (rows + 3) / 4 * 4 : rows;
    TESSERA_RETURN_IF_ERROR(TuneBucket(first, bucket, search));
    rows = bucket + 1;
  }
  return absl::OkStatus();
}

}  // namespace tessera::kernels::cuda
