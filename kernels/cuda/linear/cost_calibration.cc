#include "kernels/cuda/linear/cost_calibration.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "kernels/cuda/linear/gemm_kernels.h"
#include "kernels/cuda/linear/gemm_plan.h"
#include "kernels/cuda/linear/skinny.h"
#include "kernels/cuda/linear/skinny_int4.h"
#include "kernels/cuda/ops/rows.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cuda {
namespace {

constexpr uint64_t kColdBytes = uint64_t{256} << 20;  // several times any cache
constexpr uint64_t kMaxLaunches = 8;                  // of a group in a trial
constexpr int kRuns = 5;
constexpr uint64_t kHopeless = 3;  // halves of the library's time
constexpr int32_t kMaxTrialRows = CostTable::kRows.back();

bool IsInt4(DType dtype) { return dtype >= DType::kI4G128 && dtype <= DType::kI4G64Zero; }

bool IsGated(const ProductGroup& group) { return group.form == ProductForm::kGated; }

std::span<const int32_t> OutsOf(const ProductGroup& group) {
  const auto end = std::find(group.outs.begin(), group.outs.end(), 0);
  return {group.outs.begin(), end};
}

int32_t AllOuts(const ProductGroup& group) {
  const std::span<const int32_t> outs = OutsOf(group);
  return std::accumulate(outs.begin(), outs.end(), 0);
}

uint64_t WeightBytes(DType dtype, int32_t out, int32_t in) {
  uint64_t bytes = uint64_t{2} * out * in;
  if (IsInt4(dtype)) {
    bytes = PackedInt4Bytes(dtype, out, in);
  } else if (dtype != DType::kBF16) {
    bytes = PlanesOf(dtype, out, in).bytes;
  }
  return (bytes + 255) / 256 * 256;
}

uint64_t GroupBytes(const ProductGroup& group) {
  uint64_t bytes = 0;
  for (const int32_t out : OutsOf(group)) bytes += WeightBytes(group.dtype, out, group.in);
  return IsGated(group) ? 2 * bytes : bytes;
}

GemmEpilogue GemmEpilogueOf(ProductForm form) {
  return form == ProductForm::kLogits     ? GemmEpilogue::kStoreFloat
         : form == ProductForm::kResidual ? GemmEpilogue::kResidual
                                          : GemmEpilogue::kStore;
}

Epilogue EpilogueOf(ProductForm form) {
  constexpr Epilogue kEpilogues[] = {Epilogue::kStore, Epilogue::kLogits, Epilogue::kResidual,
                                     Epilogue::kGatedSilu};
  return kEpilogues[static_cast<int>(form)];
}

bool TakenByGemm(const ProductGroup& group) {
  const std::span<const int32_t> outs = OutsOf(group);
  return !outs.empty() && std::all_of(outs.begin(), outs.end(), [&](int32_t out) {
    return MissingGemm(group.dtype, out, group.in).empty() &&
           (!IsGated(group) || MissingRowWidth(out).empty());
  });
}

bool TakenBySkinny(const ProductGroup& group) {
  const std::span<const int32_t> outs = OutsOf(group);
  return std::all_of(outs.begin(), outs.end(), [&](int32_t out) {
    return MissingSkinny(group.dtype, group.in, out, 1).empty();
  });
}

uint32_t Nanoseconds(std::optional<float> ms) {
  if (!ms.has_value()) return 0;
  return static_cast<uint32_t>(std::clamp(*ms * 1e6f, 1.0f, 1e9f));
}

// Launches and times groups on random operands of its own.
class ProductTrial {
 public:
  explicit ProductTrial(const ProductTools& tools) : tools_(tools) {}
  ProductTrial(const ProductTrial&) = delete;
  ProductTrial& operator=(const ProductTrial&) = delete;
  ~ProductTrial() {
    (void)cudaStreamSynchronize(tools_.stream);
    for (cudaEvent_t event : events_) {
      if (event != nullptr) (void)cudaEventDestroy(event);
    }
  }

  // Operands for any of the groups.
  [[nodiscard]] Status Allocate(std::span<const ProductGroup> groups) {
    uint64_t weights = kColdBytes, in = 0, y = 0, up = 0;
    for (const ProductGroup& group : groups) {
      weights = std::max(weights, GroupBytes(group));
      in = std::max<uint64_t>(in, group.in);
      uint64_t row = 0;
      for (const int32_t out : OutsOf(group)) {
        row += 4 * Stride(out);
        if (IsGated(group)) up = std::max<uint64_t>(up, Stride(out));
      }
      y = std::max(y, row);
    }
    const auto allocate = [&](std::shared_ptr<Buffer>& buffer, uint64_t bytes,
                              TrialFormat format) -> Status {
      TESSERA_ASSIGN_OR_RETURN(buffer, tools_.memory.Allocate(bytes + 256, "products on trial"));
      return StatusOf(
          LaunchFillTrial(buffer->data(), buffer->size(), buffer->size(), format, tools_.stream),
          "making random operands");
    };
    // As bf16 all of a weight's planes are plausible: codes, float32 and f16 scales, zero points.
    TESSERA_RETURN_IF_ERROR(allocate(weights_, weights, TrialFormat::kBf16));
    TESSERA_RETURN_IF_ERROR(allocate(x_, 2 * in * kMaxTrialRows, TrialFormat::kBf16));
    TESSERA_RETURN_IF_ERROR(allocate(residual_, 4 * in * kMaxTrialRows, TrialFormat::kFloat));
    TESSERA_RETURN_IF_ERROR(allocate(norm_, 4 * in, TrialFormat::kFloat));
    TESSERA_RETURN_IF_ERROR(allocate(y_, y * kMaxTrialRows, TrialFormat::kFloat));
    TESSERA_RETURN_IF_ERROR(allocate(up_, 2 * up * kMaxTrialRows, TrialFormat::kBf16));
    for (cudaEvent_t& event : events_) {
      TESSERA_RETURN_IF_ERROR(StatusOf(cudaEventCreate(&event), "creating an event"));
    }
    return absl::OkStatus();
  }

  // Measures a group with one number of rows, whose x the product before left as codes or not.
  [[nodiscard]] ProductCost Measure(const ProductGroup& group, int32_t rows, bool coded,
                                    bool tries_skinny) {
    ProductCost cost;
    cost.gemm_ns = Nanoseconds(Time(group, rows, ProductWay::kGemm, coded));
    if (tries_skinny) cost.skinny_ns = Nanoseconds(Time(group, rows, ProductWay::kSkinny, coded));
    return cost;
  }

 private:
  static int64_t Stride(int32_t out) { return (int64_t{out} + 7) / 8 * 8; }

  // Milliseconds of a launch, or nothing where it fails.
  std::optional<float> Time(const ProductGroup& group, int32_t rows, ProductWay way, bool coded) {
    const uint64_t bytes = GroupBytes(group);
    const auto copies = std::clamp<uint64_t>(kColdBytes / bytes, 1, kMaxLaunches);
    const auto launches = std::clamp<uint64_t>(2 * kColdBytes / bytes, 1, kMaxLaunches);
    const auto launch = [&](uint64_t copy) {
      return Launch(group, rows, way, coded, weights_->data() + copy * bytes);
    };
    // Kernels are loaded by their first launch, which a recording must not do.
    if (!launch(0)) return std::nullopt;
    if (cudaStreamBeginCapture(tools_.stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
      return std::nullopt;
    }
    bool launched = true;
    for (uint64_t i = 0; i < launches; ++i) launched &= launch(i % copies);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    if (cudaStreamEndCapture(tools_.stream, &graph) != cudaSuccess) return std::nullopt;
    if (!launched || cudaGraphInstantiate(&executable, graph, 0) != cudaSuccess) {
      executable = nullptr;
    }
    (void)cudaGraphDestroy(graph);
    if (executable == nullptr) return std::nullopt;
    const float ms = Replay(executable);
    (void)cudaGraphExecDestroy(executable);
    if (ms == std::numeric_limits<float>::infinity()) return std::nullopt;
    return ms / static_cast<float>(launches);
  }

  // The runs are queued while the first one, which is not timed, keeps the device busy: none waits
  // for the host, as in a step none does.
  float Replay(cudaGraphExec_t graph) {
    (void)cudaGraphLaunch(graph, tools_.stream);
    for (cudaEvent_t event : events_) {
      (void)cudaEventRecord(event, tools_.stream);
      if (event != events_.back()) (void)cudaGraphLaunch(graph, tools_.stream);
    }
    float best = std::numeric_limits<float>::infinity();
    if (cudaStreamSynchronize(tools_.stream) != cudaSuccess) return best;
    for (size_t run = 0; run + 1 < events_.size(); ++run) {
      float ms = 0;
      if (cudaEventElapsedTime(&ms, events_[run], events_[run + 1]) == cudaSuccess) {
        best = std::min(best, ms);
      }
    }
    return best;
  }

  bool Launch(const ProductGroup& group, int32_t rows, ProductWay way, bool coded,
              const std::byte* weight) {
    LinearTask tasks[kMaxProducts];
    size_t count = 0;
    const auto next_weight = [&](int32_t out) {
      const std::byte* at = weight;
      weight += WeightBytes(group.dtype, out, group.in);
      return at;
    };
    // Outputs are columns of one buffer, as blocks have them.
    std::byte* y = y_->data();
    for (const int32_t out : OutsOf(group)) {
      LinearTask& task = tasks[count++];
      task.weight = next_weight(out);
      if (IsGated(group)) task.up = next_weight(out);
      task.y = y;
      task.y_stride = Stride(AllOuts(group));
      task.out = out;
      task.row_count = rows;
      task.norm = reinterpret_cast<const float*>(norm_->data());
      y += int64_t{group.form == ProductForm::kStore ? 2 : 4} * out;
    }
    LinearOp::Params params{.x = {.x = x_->data()}, .in = group.in, .tasks = {tasks, count}};
    params.epilogue = EpilogueOf(group.form);
    if (group.form != ProductForm::kResidual && MissingRowWidth(group.in).empty()) {
      params.residual = reinterpret_cast<const float*>(residual_->data());
    }
    params.epsilon = 1e-5f;
    params.up_scratch = up_->data();
    return tools_.launch({params, group.dtype, way, coded}).ok();
  }

  const ProductTools& tools_;
  std::shared_ptr<Buffer> weights_, x_, residual_, norm_, y_, up_;
  std::array<cudaEvent_t, kRuns + 1> events_{};
};

// Whether the product before, gate and up of the same block, leaves the rows of a residual product
// as codes: where it goes to the library. It has been measured by then.
bool ComesCoded(const ProductGroup& group, int32_t rows, const CostTable& table) {
  if (group.form != ProductForm::kResidual) return false;
  ProductGroup before{.dtype = group.dtype, .form = ProductForm::kGated, .in = group.outs[0]};
  before.outs[0] = group.in;
  return table.costs().count(before) > 0 && table.Choose(before, rows) == ProductWay::kGemm;
}

Status MeasureGroup(const ProductGroup& group, int32_t max_rows, const ProductTools& tools,
                    ProductTrial& trial, CostTable& table) {
  bool tries_skinny = tools.streams && TakenBySkinny(group);
  for (size_t i = 0; i < CostTable::kRows.size(); ++i) {
    const int32_t rows = CostTable::kRows[i];
    const ProductCost cost =
        trial.Measure(group, rows, ComesCoded(group, rows, table), tries_skinny);
    if (cost.skinny_ns == 0 && cost.gemm_ns == 0) {
      TESSERA_RETURN_IF_ERROR(StatusOf(cudaDeviceSynchronize(), "measuring a product"));
    } else {
      table.Set(group, i, cost);
    }
    if (cost.gemm_ns != 0 && uint64_t{2} * cost.skinny_ns > kHopeless * cost.gemm_ns) {
      tries_skinny = false;
    }
    if (rows >= max_rows) break;
  }
  return absl::OkStatus();
}

}  // namespace

CostKey CostKeyOf(const DeviceInfo& device, const GemmEngine& gemm) {
  CostKey key{.device = device.name, .major = device.major, .minor = device.minor};
  (void)cudaDriverGetVersion(&key.driver_version);
  key.library_version = gemm.LibraryVersion();
  return key;
}

Status CalibrateCosts(std::span<const ProductGroup> groups, int32_t max_rows,
                      const ProductTools& tools, CostTable& table) {
  // What the workspaces were given last may still run on another stream.
  TESSERA_RETURN_IF_ERROR(StatusOf(cudaDeviceSynchronize(), "measuring products"));
  tools.gemm.Import(table.algorithms());
  std::vector<ProductGroup> missing;
  for (const ProductGroup& group : groups) {
    if (!TakenByGemm(group)) continue;
    std::vector<int32_t> outs(OutsOf(group).begin(), OutsOf(group).end());
    // And what they are where their weights follow one another.
    if (outs.size() > 1 && group.dtype == DType::kBF16) outs.push_back(AllOuts(group));
    for (const int32_t out : outs) {
      const GemmShape shape{group.dtype, out, group.in, GemmEpilogueOf(group.form)};
      TESSERA_RETURN_IF_ERROR(
          tools.gemm.Prepare(shape, std::min(max_rows, kTimedRows), GemmSearch::kTimed));
      TESSERA_RETURN_IF_ERROR(tools.gemm.Prepare(shape, max_rows, GemmSearch::kHeuristic));
    }
    if (!table.Has(group, max_rows)) missing.push_back(group);
  }
  table.set_algorithms(tools.gemm.Export());
  if (missing.empty()) return absl::OkStatus();
  // What ComesCoded asks for comes first.
  std::stable_partition(missing.begin(), missing.end(), IsGated);
  ProductTrial trial(tools);
  TESSERA_RETURN_IF_ERROR(trial.Allocate(missing));
  for (const ProductGroup& group : missing) {
    TESSERA_RETURN_IF_ERROR(MeasureGroup(group, max_rows, tools, trial, table));
  }
  return absl::OkStatus();
}

}  // namespace tessera::kernels::cuda
