#include "kernels/cuda/linear/product_trial.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/cuda/linear/gemm_kernels.h"
#include "kernels/cuda/linear/skinny_int4.h"
#include "kernels/cuda/ops/rows.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cuda {
namespace {

constexpr uint64_t kColdBytes = uint64_t{256} << 20;  // several times any cache
constexpr uint64_t kMaxLaunches = 8;                  // of a group in a trial
constexpr uint64_t kLayers = 4;                       // in a trial of one
constexpr int32_t kMaxTrialRows = CostTable::kRows.back();

bool IsInt4(DType dtype) { return dtype >= DType::kI4G128 && dtype <= DType::kI4G64Zero; }

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

Epilogue EpilogueOf(ProductForm form) {
  constexpr Epilogue kEpilogues[] = {Epilogue::kStore, Epilogue::kLogits, Epilogue::kResidual,
                                     Epilogue::kGatedSilu};
  return kEpilogues[static_cast<int>(form)];
}

uint32_t Nanoseconds(std::optional<float> ms) {
  if (!ms.has_value()) return 0;
  return static_cast<uint32_t>(std::clamp(*ms * 1e6f, 1.0f, 1e9f));
}

int64_t Stride(int32_t out) { return (int64_t{out} + 7) / 8 * 8; }

}  // namespace

std::span<const int32_t> OutsOf(const ProductGroup& group) {
  const auto end = std::find(group.outs.begin(), group.outs.end(), 0);
  return {group.outs.begin(), end};
}

int32_t AllOuts(const ProductGroup& group) {
  const std::span<const int32_t> outs = OutsOf(group);
  return std::accumulate(outs.begin(), outs.end(), 0);
}

ProductTrial::~ProductTrial() {
  (void)cudaStreamSynchronize(tools_.stream);
  for (cudaEvent_t event : events_) {
    if (event != nullptr) (void)cudaEventDestroy(event);
  }
}

Status ProductTrial::Allocate(std::span<const ProductGroup> groups) {
  uint64_t weights = kColdBytes, in = 0, y = 0, up = 0;
  for (const ProductGroup& group : groups) {
    weights = std::max(weights, kColdBytes / 2 + GroupBytes(group));
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

ProductCost ProductTrial::Measure(const ProductGroup& group, int32_t rows, bool coded,
                                  bool tries_skinny) {
  ProductCost cost;
  cost.gemm_ns = Nanoseconds(TimeGroup(group, rows, ProductWay::kGemm, coded));
  if (tries_skinny) {
    cost.skinny_ns = Nanoseconds(TimeGroup(group, rows, ProductWay::kSkinny, coded));
  }
  return cost;
}

uint32_t ProductTrial::Measure(const ProductLayer& layer, int32_t rows) {
  uint64_t at = 0;
  const auto launch = [&](const ProductGroup& group, std::optional<ProductWay> way) {
    if (at >= kColdBytes / 2) at = 0;
    const std::byte* const weight = weights_->data() + at;
    at += GroupBytes(group);
    // Down reads what gate and up wrote.
    std::byte* const x = &group == &layer.back() ? y_->data() : x_->data();
    const bool adds = group.form == ProductForm::kResidual;
    return Launch(group, rows, way, false, {weight, x, adds ? residual_->data() : y_->data()});
  };
  return Nanoseconds(Time(kLayers, [&](uint64_t) {
    // Attention, too, starts early and fills a ring with what it reads, on all multiprocessors.
    return launch(layer[0], std::nullopt) && launch(layer[1], ProductWay::kSkinny) &&
           launch(layer[1], std::nullopt) && launch(layer[2], std::nullopt) &&
           launch(layer[3], std::nullopt);
  }));
}

std::optional<float> ProductTrial::TimeGroup(const ProductGroup& group, int32_t rows,
                                             ProductWay way, bool coded) {
  const uint64_t bytes = GroupBytes(group);
  const auto copies = std::clamp<uint64_t>(kColdBytes / bytes, 1, kMaxLaunches);
  const auto launches = std::clamp<uint64_t>(2 * kColdBytes / bytes, 1, kMaxLaunches);
  return Time(launches, [&](uint64_t i) {
    return Launch(group, rows, way, coded,
                  {weights_->data() + i % copies * bytes, x_->data(), y_->data()});
  });
}

std::optional<float> ProductTrial::Time(uint64_t launches,
                                        absl::FunctionRef<bool(uint64_t)> launch) {
  // Kernels are loaded by their first launch, which a recording must not do.
  if (!launch(0)) return std::nullopt;
  if (cudaStreamBeginCapture(tools_.stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
    return std::nullopt;
  }
  bool launched = true;
  for (uint64_t i = 0; i < launches; ++i) launched &= launch(i);
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
float ProductTrial::Replay(cudaGraphExec_t graph) {
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

bool ProductTrial::Launch(const ProductGroup& group, int32_t rows, std::optional<ProductWay> way,
                          bool coded, Operands operands) {
  LinearTask tasks[kMaxProducts];
  size_t count = 0;
  const auto next_weight = [&](int32_t out) {
    const std::byte* at = operands.weight;
    operands.weight += WeightBytes(group.dtype, out, group.in);
    return at;
  };
  // Outputs are columns of one buffer, as blocks have them.
  for (const int32_t out : OutsOf(group)) {
    LinearTask& task = tasks[count++];
    task.weight = next_weight(out);
    if (IsGated(group)) task.up = next_weight(out);
    task.y = operands.y;
    task.y_stride = Stride(AllOuts(group));
    task.out = out;
    task.row_count = rows;
    task.norm = reinterpret_cast<const float*>(norm_->data());
    operands.y += int64_t{group.form == ProductForm::kStore ? 2 : 4} * out;
  }
  LinearOp::Params params{.x = {.x = operands.x}, .in = group.in, .tasks = {tasks, count}};
  params.epilogue = EpilogueOf(group.form);
  if (group.form != ProductForm::kResidual && MissingRowWidth(group.in).empty()) {
    params.residual = reinterpret_cast<const float*>(residual_->data());
  }
  params.epsilon = 1e-5f;
  params.up_scratch = up_->data();
  return tools_.launch({params, group.dtype, way, coded}).ok();
}

}  // namespace tessera::kernels::cuda
