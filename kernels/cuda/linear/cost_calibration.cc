#include "kernels/cuda/linear/cost_calibration.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "kernels/cuda/linear/gemm_plan.h"
#include "kernels/cuda/linear/layer_mixtures.h"
#include "kernels/cuda/linear/product_trial.h"
#include "kernels/cuda/linear/skinny.h"
#include "kernels/cuda/ops/rows.h"

namespace tessera::kernels::cuda {
namespace {

constexpr uint64_t kHopeless = 3;  // halves of the library's time

GemmEpilogue GemmEpilogueOf(ProductForm form) {
  return form == ProductForm::kLogits     ? GemmEpilogue::kStoreFloat
         : form == ProductForm::kResidual ? GemmEpilogue::kResidual
                                          : GemmEpilogue::kStore;
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
  TESSERA_RETURN_IF_ERROR(trial.Allocate(groups));
  for (const ProductGroup& group : missing) {
    TESSERA_RETURN_IF_ERROR(MeasureGroup(group, max_rows, tools, trial, table));
  }
  if (!tools.streams) return absl::OkStatus();
  const auto measure = [&](const ProductLayer& layer, int32_t rows) {
    return trial.Measure(layer, rows);
  };
  MeasureLayers(groups, missing, max_rows, measure, table);
  return StatusOf(cudaDeviceSynchronize(), "measuring a layer");
}

}  // namespace tessera::kernels::cuda
