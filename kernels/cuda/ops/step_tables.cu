#include <algorithm>

#include "kernels/cuda/ops/step_tables.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;

struct Tables {
  const TokenId* tokens;
  const int32_t* slots;
  const TokenId* drawn;
  TokenId* resolved;
  int32_t rows;
  const TableUpdate* updates;
  int32_t update_count;
  PageId* tables;
};

__global__ void __launch_bounds__(kThreads) StepTablesKernel(const Tables t) {
  const int32_t i = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (i < t.rows) {
    const int32_t slot = t.slots[i];
    t.resolved[i] = slot >= 0 ? t.drawn[slot] : t.tokens[i];
  }
  if (i < t.update_count) t.tables[t.updates[i].index] = t.updates[i].page;
}

// Does nothing, after the kernel before it has ended: what starts early after this one cannot
// overtake that one.
__global__ void NothingKernel() {}

}  // namespace

cudaError_t LaunchStepTables(const StepTablesOp::Params& params, cudaStream_t stream) {
  const Tables tables{params.tokens, params.slots,   params.drawn,        params.resolved,
                      params.rows,   params.updates, params.update_count, params.tables};
  const int32_t items = std::max(params.rows, params.update_count);
  StepTablesKernel<<<static_cast<unsigned>((items + kThreads - 1) / kThreads), kThreads, 0,
                     stream>>>(tables);
  NothingKernel<<<1, 1, 0, stream>>>();
  return cudaGetLastError();
}

}  // namespace tessera::kernels::cuda
