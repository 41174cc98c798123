#include "kernels/cuda/catalog/rope_append.h"

#include "kernels/cuda/context.h"
#include "kernels/cuda/registry.h"

namespace tessera::kernels::cuda {

RopeAppendArgs RopeAppendArgsOf(const RopeAppendOp::Params& p) {
  const auto kv_heads = static_cast<int32_t>(p.kv.kv_heads);
  const auto head_dim = static_cast<int32_t>(p.kv.head_dim);
  return {.rows = p.rows,
          .q_heads = p.q_heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .rotary_dim = p.rotary_dim,
          .style = p.style,
          .kv_type = p.kv.dtype,
          .q = static_cast<__nv_bfloat16*>(p.q),
          .k = static_cast<const __nv_bfloat16*>(p.k),
          .v = static_cast<const __nv_bfloat16*>(p.v),
          .q_stride = p.q_stride,
          .k_stride = p.kv_stride,
          .v_stride = p.kv_stride,
          .cosine = p.cosine,
          .sine = p.sine,
          .rotary_rows = p.rotary_rows,
          .arena = p.arena,
          .page = p.page,
          .slot = p.slot};
}

std::string MissingRopeAppendOp(const RopeAppendOp::Desc& desc) {
  return MissingRopeAppend(RopeAppendArgsOf({.kv = desc.kv,
                                             .style = desc.style,
                                             .rows = 1,
                                             .q_heads = static_cast<int32_t>(desc.q_heads),
                                             .rotary_dim = static_cast<int32_t>(desc.rotary_dim)}));
}

namespace {

void Run(ExecContext& context, const RopeAppendOp::Params& p) {
  CudaContext& cuda = CudaContext::Of(context);
  cuda.Check(LaunchRopeAppend(RopeAppendArgsOf(p), cuda.stream()), "rope_append");
}

}  // namespace

void Register_rope_append(Registry& registry) {
  registry.Add<RopeAppendOp>("rope_append", MissingRopeAppendOp, Run);
}

}  // namespace tessera::kernels::cuda
