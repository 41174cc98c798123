#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

void Run(ExecContext& /*context*/, const StepTablesOp::Params& p) {
  for (int32_t i = 0; i < p.update_count; ++i) p.tables[p.updates[i].index] = p.updates[i].page;
  for (int32_t row = 0; row < p.rows; ++row) {
    p.resolved[row] = p.slots[row] >= 0 ? p.drawn[p.slots[row]] : p.tokens[row];
  }
}

std::string Missing(const StepTablesOp::Desc& /*desc*/) { return ""; }

}  // namespace

void Register_step_tables(Registry& registry) {
  registry.Add<StepTablesOp>("step_tables", Missing, Run, Run);
}

}  // namespace tessera::kernels::cpu
