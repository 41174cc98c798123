// Which kernels a backend has, asked once at bind time.
//
// An op is a struct with `Desc` (what selects a kernel) and `Params` (one launch: views and
// scalars). `Find` returns the cheapest kernel that supports a descriptor on this machine, or an
// UNIMPLEMENTED error that lists what was required, what is supported and what is missing. Kernels
// of one op that a machine may choose between give a row the same bits: cost decides speed, never
// numerics.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "config/foundation/status.h"
#include "kernels/exec_context.h"
#include "kernels/op_profile.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/copy_pages.h"
#include "kernels/ops/embed.h"
#include "kernels/ops/expert_rows.h"
#include "kernels/ops/gated_activation.h"
#include "kernels/ops/latent_attention.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/page_stats.h"
#include "kernels/ops/pool_rows.h"
#include "kernels/ops/quantize_rows.h"
#include "kernels/ops/residual.h"
#include "kernels/ops/rope_append.h"
#include "kernels/ops/rotary_angles.h"
#include "kernels/ops/route_experts.h"
#include "kernels/ops/sample.h"
#include "kernels/ops/scale_logits.h"
#include "kernels/ops/step_tables.h"

namespace tessera::kernels {

template <typename Op>
struct Kernel {
  using RunFn = void (*)(ExecContext&, const typename Op::Params&);
  RunFn run = nullptr;
  const char* name = "";
  typename Op::Desc desc = {};  // what Find was asked for

  void operator()(ExecContext& context, const typename Op::Params& params) const {
    if (context.profile() != nullptr) [[unlikely]] {
      RunProfiled(context, params);
    } else {
      run(context, params);
    }
  }

 private:
  void RunProfiled(ExecContext& context, const typename Op::Params& params) const {
    const uint64_t begin = OpProfile::Now();
    run(context, params);
    const uint64_t end = OpProfile::Now();
    context.profile()->Add(Op::kName, Describe(desc), begin, end, WorkOf(desc, params));
  }
};

template <typename Op>
struct KernelEntry {
  Kernel<Op> kernel;
  int cost = 0;  // lower wins among those that support a descriptor
  // Empty when supported, else what is missing ("dtype Q4_K", "head_dim 48").
  std::string (*missing)(const typename Op::Desc&) = nullptr;
};

class Catalog {
 public:
  template <typename Op>
  void Add(const KernelEntry<Op>& entry) {
    std::get<std::vector<KernelEntry<Op>>>(entries_).push_back(entry);
  }
  template <typename Op>
  [[nodiscard]] const std::vector<KernelEntry<Op>>& Entries() const {
    return std::get<std::vector<KernelEntry<Op>>>(entries_);
  }
  template <typename Op>
  [[nodiscard]] StatusOr<Kernel<Op>> Find(const typename Op::Desc& desc) const {
    const KernelEntry<Op>* best = nullptr;
    std::string missing;
    for (const KernelEntry<Op>& entry : Entries<Op>()) {
      const std::string lack = entry.missing(desc);
      if (lack.empty()) {
        if (best == nullptr || entry.cost < best->cost) best = &entry;
      } else {
        missing += std::string(missing.empty() ? "" : "; ") + entry.kernel.name + " lacks " + lack;
      }
    }
    if (best != nullptr) {
      Kernel<Op> kernel = best->kernel;
      kernel.desc = desc;
      return kernel;
    }
    return NoKernel(Op::kName, Describe(desc), missing);
  }

 private:
  [[nodiscard]] static Status NoKernel(const char* op, const std::string& required,
                                       const std::string& missing);

  std::tuple<std::vector<KernelEntry<EmbedOp>>, std::vector<KernelEntry<NormOp>>,
             std::vector<KernelEntry<QuantizeRowsOp>>, std::vector<KernelEntry<LinearOp>>,
             std::vector<KernelEntry<RopeAppendOp>>, std::vector<KernelEntry<AttentionOp>>,
             std::vector<KernelEntry<GatedActivationOp>>, std::vector<KernelEntry<PageStatsOp>>,
             std::vector<KernelEntry<SampleOp>>, std::vector<KernelEntry<RotaryAnglesOp>>,
             std::vector<KernelEntry<StepTablesOp>>, std::vector<KernelEntry<CopyPagesOp>>,
             std::vector<KernelEntry<ResidualOp>>, std::vector<KernelEntry<ScaleLogitsOp>>,
             std::vector<KernelEntry<RouteExpertsOp>>, std::vector<KernelEntry<GatherRowsOp>>,
             std::vector<KernelEntry<ClampedSwigluOp>>, std::vector<KernelEntry<CombineExpertsOp>>,
             std::vector<KernelEntry<LatentAppendOp>>, std::vector<KernelEntry<LatentAttentionOp>>,
             std::vector<KernelEntry<PoolRowsOp>>>
      entries_;
};

}  // namespace tessera::kernels
