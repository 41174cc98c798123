#include <cstring>

#include "kernels/cpu/registry.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kernels::cpu {
namespace {

void Run(ExecContext& /*context*/, const CopyPagesOp::Params& p) {
  for (const PageCopy& copy : p.copies) {
    std::memcpy(PageAddress(p.arena, copy.to), PageAddress(p.arena, copy.from), copy.bytes);
  }
}

std::string Missing(const CopyPagesOp::Desc& /*desc*/) { return ""; }

}  // namespace

void Register_copy_pages(Registry& registry) {
  registry.Add<CopyPagesOp>("copy_pages", Missing, Run, Run);
}

}  // namespace tessera::kernels::cpu
