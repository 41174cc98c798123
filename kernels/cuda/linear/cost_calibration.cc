#include "kernels/cuda/linear/cost_calibration.h"

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>
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
constexpr uint64_t kMaxCopies = 8;                    // of a group in a trial
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

SkinnyEpilogue SkinnyEpilogueOf(ProductForm form) {
  constexpr SkinnyEpilogue kEpilogues[] = {SkinnyEpilogue::kStore, SkinnyEpilogue::kStoreFloat,
                                           SkinnyEpilogue::kResidual, SkinnyEpilogue::kGatedSilu};
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
    if (stream_ != nullptr) (void)cudaStreamSynchronize(stream_);
    if (begin_ != nullptr) (void)cudaEventDestroy(begin_);
    if (end_ != nullptr) (void)cudaEventDestroy(end_);
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }

  // Operands for any of the groups.
  [[nodiscard]] Status Allocate(std::span<const ProductGroup> groups) {
    uint64_t weights = kColdBytes, in = 0, y = 0, up = 0;
    for (const ProductGroup& group : groups) {
      weights = std::max(weights, GroupBytes(group));
      in = std::max<uint64_t>(in, group.in);
      uint64_t row = 0;
      for (const int32_t out : OutsOf(group)) {
        row += 4 * ((uint64_t(out) + 7) / 8 * 8);
        if (IsGated(group)) up = std::max<uint64_t>(up, out);
      }
      y = std::max(y, row);
    }
    const auto allocate = [&](std::shared_ptr<Buffer>& buffer, uint64_t bytes) -> Status {
      TESSERA_ASSIGN_OR_RETURN(buffer, tools_.memory.Allocate(bytes + 256, "products on trial"));
      return absl::OkStatus();
    };
    TESSERA_RETURN_IF_ERROR(allocate(weights_, weights));
    TESSERA_RETURN_IF_ERROR(allocate(x_, 2 * in * kMaxTrialRows));
    TESSERA_RETURN_IF_ERROR(allocate(codes_, in * kMaxTrialRows));
    TESSERA_RETURN_IF_ERROR(allocate(scales_, 4 * kMaxTrialRows));
    TESSERA_RETURN_IF_ERROR(allocate(y_, y * kMaxTrialRows));
    TESSERA_RETURN_IF_ERROR(allocate(up_, 2 * up * kMaxTrialRows));
    TESSERA_RETURN_IF_ERROR(
        StatusOf(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"));
    TESSERA_RETURN_IF_ERROR(StatusOf(cudaEventCreate(&begin_), "creating an event"));
    TESSERA_RETURN_IF_ERROR(StatusOf(cudaEventCreate(&end_), "creating an event"));
    const auto fill = [&](const std::shared_ptr<Buffer>& buffer, TrialFormat format) {
      return StatusOf(
          LaunchFillTrial(buffer->data(), buffer->size(), buffer->size(), format, stream_),
          "making random operands");
    };
    // As bf16 all of a weight's planes are plausible: codes, float32 and f16 scales, zero points.
    TESSERA_RETURN_IF_ERROR(fill(weights_, TrialFormat::kBf16));
    TESSERA_RETURN_IF_ERROR(fill(x_, TrialFormat::kBf16));
    TESSERA_RETURN_IF_ERROR(fill(codes_, TrialFormat::kE4m3));
    return fill(scales_, TrialFormat::kFloat);
  }

  // Measures a group with one number of rows.
  [[nodiscard]] ProductCost Measure(const ProductGroup& group, int32_t rows, bool tries_skinny) {
    ProductCost cost;
    cost.gemm_ns =
        Nanoseconds(Time(group, [&](uint64_t offset) { return LaunchGemm(group, rows, offset); }));
    if (!tries_skinny) return cost;
    cost.skinny_ns = Nanoseconds(
        Time(group, [&](uint64_t offset) { return LaunchPasses(group, rows, offset); }));
    return cost;
  }

 private:
  using Bf16 = __nv_bfloat16;

  // Milliseconds of what `launch` launches with the weights at an offset, or nothing where that
  // fails.
  std::optional<float> Time(const ProductGroup& group,
                            const std::function<bool(uint64_t)>& launch) {
    const uint64_t bytes = GroupBytes(group);
    const auto copies = std::clamp<uint64_t>(kColdBytes / bytes, 1, kMaxCopies);
    // Kernels are loaded by their first launch, which a recording must not do.
    if (!launch(0)) return std::nullopt;
    if (cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
      return std::nullopt;
    }
    bool launched = true;
    for (uint64_t i = 0; i < copies; ++i) launched &= launch(i * bytes);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    if (cudaStreamEndCapture(stream_, &graph) != cudaSuccess) return std::nullopt;
    if (!launched || cudaGraphInstantiate(&executable, graph, 0) != cudaSuccess) {
      executable = nullptr;
    }
    (void)cudaGraphDestroy(graph);
    if (executable == nullptr) return std::nullopt;
    const float ms = Replay(executable);
    (void)cudaGraphExecDestroy(executable);
    if (ms == std::numeric_limits<float>::infinity()) return std::nullopt;
    return ms / static_cast<float>(copies);
  }

  float Replay(cudaGraphExec_t graph) {
    float best = std::numeric_limits<float>::infinity();
    (void)cudaGraphLaunch(graph, stream_);
    for (int run = 0; run < kRuns; ++run) {
      float ms = 0;
      (void)cudaEventRecord(begin_, stream_);
      (void)cudaGraphLaunch(graph, stream_);
      (void)cudaEventRecord(end_, stream_);
      if (cudaEventSynchronize(end_) != cudaSuccess) break;
      if (cudaEventElapsedTime(&ms, begin_, end_) == cudaSuccess) best = std::min(best, ms);
    }
    return best;
  }

  bool LaunchPasses(const ProductGroup& group, int32_t rows, uint64_t offset) {
    for (int32_t done = 0; done < rows; done += kSkinnyMaxRows) {
      SkinnyArgs args{.dtype = group.dtype, .in = group.in};
      args.rows = std::min(kSkinnyMaxRows, rows - done);
      args.x = reinterpret_cast<const Bf16*>(x_->data()) + int64_t{done} * group.in;
      args.epilogue = SkinnyEpilogueOf(group.form);
      args.workspace = tools_.skinny_workspace;
      const std::byte* weight = weights_->data() + offset;
      std::byte* y = y_->data();
      for (const int32_t out : OutsOf(group)) {
        SkinnyTask& task = args.tasks[args.task_count++];
        task.weight = weight;
        weight += WeightBytes(group.dtype, out, group.in);
        if (IsGated(group)) task.up = weight;
        task.y_stride = (out + 7) / 8 * 8;
        task.y = y + 4 * done * task.y_stride;
        y += 4 * kMaxTrialRows * task.y_stride;
        task.out = out;
      }
      if (LaunchSkinny(args, stream_) != cudaSuccess) return false;
    }
    return true;
  }

  bool LaunchGemm(const ProductGroup& group, int32_t rows, uint64_t offset) {
    GemmArgs args{.dtype = group.dtype, .in = group.in, .rows = rows};
    args.x = reinterpret_cast<const Bf16*>(x_->data());
    args.int4_layout = Int4Layout::kPacked;
    args.epilogue = GemmEpilogueOf(group.form);
    // Of a residual's product no norm makes the rows.
    const bool given = group.form != ProductForm::kResidual &&
                       tools_.gemm.ReadsCodes(group.dtype, group.outs[0], group.in);
    if (given) {
      args.x_codes = reinterpret_cast<const uint8_t*>(codes_->data());
      args.x_scales = reinterpret_cast<const float*>(scales_->data());
    }
    args.weight = weights_->data() + offset;
    // Outputs are columns of one buffer, as blocks have them.
    args.y_stride = (AllOuts(group) + 7) / 8 * 8;
    std::byte* y = y_->data();
    std::vector<GemmArgs> products;
    for (const int32_t out : OutsOf(group)) {
      args.out = out;
      args.y = y;
      y += int64_t{args.epilogue == GemmEpilogue::kStore ? 2 : 4} * out;
      products.push_back(args);
      args.weight += WeightBytes(group.dtype, out, group.in);
      if (!IsGated(group)) continue;
      args.y = up_->data();
      products.push_back(args);
      args.weight += WeightBytes(group.dtype, out, group.in);
    }
    if (!tools_.gemm.RunTogether(products, stream_).ok()) return false;
    for (size_t i = 0; IsGated(group) && i < products.size(); i += 2) {
      const GemmArgs& first = products[i];
      auto* gate = static_cast<Bf16*>(first.y);
      const GatedActivationArgs activation{.gate = gate,
                                           .up = static_cast<const Bf16*>(products[i + 1].y),
                                           .gate_stride = first.y_stride,
                                           .up_stride = first.y_stride,
                                           .rows = rows,
                                           .width = first.out,
                                           .out = {.y = gate, .stride = first.y_stride}};
      if (LaunchGatedActivation(activation, stream_) != cudaSuccess) return false;
    }
    return true;
  }

  const ProductTools tools_;
  std::shared_ptr<Buffer> weights_, x_, codes_, scales_, y_, up_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

Status MeasureGroup(const ProductGroup& group, int32_t max_rows, const ProductTools& tools,
                    ProductTrial& trial, CostTable& table) {
  bool tries_skinny = tools.skinny_workspace != nullptr && TakenBySkinny(group);
  for (size_t i = 0; i < CostTable::kRows.size(); ++i) {
    const ProductCost cost = trial.Measure(group, CostTable::kRows[i], tries_skinny);
    if (cost.skinny_ns == 0 && cost.gemm_ns == 0) {
      TESSERA_RETURN_IF_ERROR(StatusOf(cudaDeviceSynchronize(), "measuring a product"));
    } else {
      table.Set(group, i, cost);
    }
    if (cost.gemm_ns != 0 && uint64_t{2} * cost.skinny_ns > kHopeless * cost.gemm_ns) {
      tries_skinny = false;
    }
    if (CostTable::kRows[i] >= max_rows) break;
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
  ProductTrial trial(tools);
  TESSERA_RETURN_IF_ERROR(trial.Allocate(missing));
  for (const ProductGroup& group : missing) {
    TESSERA_RETURN_IF_ERROR(MeasureGroup(group, max_rows, tools, trial, table));
  }
  return absl::OkStatus();
}

}  // namespace tessera::kernels::cuda
