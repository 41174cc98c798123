// Ops on pages and page tables.
#include "kernels/cuda/ops/pages.h"

#include "kernels/cuda/context.h"
#include "kernels/cuda/ops/step_tables.h"
#include "kernels/cuda/registry.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kernels::cuda {
namespace {

void Statistics(ExecContext& context, const PageStatsOp::Params& p) {
  CudaContext& cuda = CudaContext::Of(context);
  // What a launch takes at most.
  constexpr size_t kMost = 65535;
  for (size_t at = 0; at < p.pages.size(); at += kMost) {
    const std::span<const PageId> pages = p.pages.subspan(at, std::min(kMost, p.pages.size() - at));
    const std::byte* device = cuda.Upload(std::as_bytes(pages));
    cuda.Check(LaunchPageStats({.kv = p.kv,
                                .arena = p.arena,
                                .pages = reinterpret_cast<const PageId*>(device),
                                .count = static_cast<int32_t>(pages.size())},
                               cuda.stream()),
               "page_stats");
  }
}

std::string MissingStatistics(const PageStatsOp::Desc& desc) { return MissingPageStats(desc.kv); }

void Copy(ExecContext& context, const CopyPagesOp::Params& p) {
  CudaContext& cuda = CudaContext::Of(context);
  for (const kernels::PageCopy& copy : p.copies) {
    cuda.Check(cudaMemcpyAsync(PageAddress(p.arena, copy.to), PageAddress(p.arena, copy.from),
                               copy.bytes, cudaMemcpyDeviceToDevice, cuda.stream()),
               "copy_pages");
  }
}

std::string MissingCopy(const CopyPagesOp::Desc& /*desc*/) { return ""; }

void Tables(ExecContext& context, const StepTablesOp::Params& p) {
  CudaContext& cuda = CudaContext::Of(context);
  cuda.Check(LaunchStepTables(p, cuda.stream()), "step_tables");
}

std::string MissingTables(const StepTablesOp::Desc& /*desc*/) { return ""; }

}  // namespace

void Register_pages(Registry& registry) {
  registry.Add<PageStatsOp>("page_stats", MissingStatistics, Statistics);
  registry.Add<CopyPagesOp>("copy_pages", MissingCopy, Copy);
  registry.Add<StepTablesOp>("step_tables", MissingTables, Tables);
}

}  // namespace tessera::kernels::cuda
