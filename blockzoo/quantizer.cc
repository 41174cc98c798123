#include "blockzoo/quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/thread_pool.h"
#include "kernels/weight_codec.h"

namespace tessera::blockzoo {
namespace {

struct BandLoss {
  double error = 0;   // squared
  double weight = 0;  // squared
  bool finite = true;
};

// What the threads share: a band is one unit of work, and has its own place for its loss.
struct Job {
  const TensorRef& from;
  const std::byte* canonical;
  kernels::DType to;
  std::byte* out;
  std::vector<BandLoss> bands;
  std::atomic<uint64_t> next{0};
};

BandLoss RunBand(Job& job, uint64_t band, std::vector<float>& values, std::vector<float>& back) {
  const uint64_t out = job.from.shape[0];
  const uint64_t in = job.from.shape[1];
  const uint64_t row = band * kernels::kBandRows;
  const uint64_t rows = std::min(kernels::kBandRows, out - row);
  BandLoss loss;
  for (uint64_t r = 0; r < rows; ++r) {
    kernels::DecodeRow(job.from.dtype, out, in, job.canonical, row + r, values.data() + r * in);
  }
  for (uint64_t i = 0; i < rows * in; ++i) {
    loss.finite = loss.finite && std::isfinite(values[i]);
    loss.weight += double{values[i]} * values[i];
  }
  if (!loss.finite) return loss;
  kernels::EncodeBand(job.to, out, in, row, rows, values.data(), job.out);
  for (uint64_t r = 0; r < rows; ++r) {
    kernels::DecodeRow(job.to, out, in, job.out, row + r, back.data());
    for (uint64_t k = 0; k < in; ++k) {
      const double error = double{back[k]} - values[r * in + k];
      loss.error += error * error;
    }
  }
  return loss;
}

void RunBands(Job& job) {
  const uint64_t in = job.from.shape[1];
  std::vector<float> values(kernels::kBandRows * in);
  std::vector<float> back(in);
  for (uint64_t band = job.next++; band < job.bands.size(); band = job.next++) {
    job.bands[band] = RunBand(job, band, values, back);
  }
}

}  // namespace

StatusOr<QuantizedTensor> QuantizeTensor(const TensorRef& from,
                                         std::span<const std::byte> canonical, kernels::DType to) {
  TESSERA_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(to, from.shape));
  if (from.shape.size() != 2 || !kernels::HasEncoder(to)) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("a tensor ", ShapeText(from.shape), " cannot become ",
                                       kernels::InfoOf(to).name),
                  .why = "matrices become BF16, a block format or a type with planes"});
  }
  TESSERA_ASSIGN_OR_RETURN(const auto memory, MappedFile::Anonymous(bytes));
  Job job{from, canonical.data(), to, memory->writable().data(), {}};
  job.bands.resize((from.shape[0] + kernels::kBandRows - 1) / kernels::kBandRows);
  std::vector<std::thread> others;
  const auto threads = std::min<size_t>(
      job.bands.size(), static_cast<size_t>(kernels::ThreadPool::UsableProcessors()));
  for (size_t i = 1; i < threads; ++i) others.emplace_back([&job] { RunBands(job); });
  RunBands(job);
  for (std::thread& thread : others) thread.join();
  BandLoss sum;
  for (const BandLoss& band : job.bands) {
    sum.error += band.error;
    sum.weight += band.weight;
    sum.finite = sum.finite && band.finite;
  }
  if (!sum.finite) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "a weight is infinite or not a number",
                  .why = "no scale holds such a weight beside others"});
  }
  return QuantizedTensor{memory, sum.weight > 0 ? std::sqrt(sum.error / sum.weight) : 0};
}

}  // namespace tessera::blockzoo
