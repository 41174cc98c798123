#include "kernels/cuda/ops/sample.h"

#include "kernels/cuda/context.h"
#include "kernels/cuda/registry.h"

namespace tessera::kernels::cuda {
namespace {

// Rows whose logits follow each other, `rows.size()` of them.
void RunTogether(CudaContext& cuda, const SampleOp::Params& p, size_t begin, size_t count) {
  const std::span<const SampleRow> rows = p.rows.subspan(begin, count);
  const size_t bytes = PackedSampleBytes(rows, p.vocab);
  const Mirrored<std::byte> packed = cuda.Reserve(bytes);
  PackSampleRows(rows, cuda.SlotsOf(rows), p.vocab, {packed.host, bytes});
  cuda.UploadReserved(packed, bytes);
  cuda.Check(
      LaunchSample(
          {.logits = rows.front().logits,
           .logits_stride = LogitsStride(p.vocab),
           .rows = static_cast<int32_t>(count),
           .vocab = p.vocab,
           .packed = packed.device,
           .results = p.results + begin,
           .top = p.top == nullptr ? nullptr : p.top + static_cast<int64_t>(begin) * p.top_stride,
           .top_stride = p.top_stride,
           .last_token = reinterpret_cast<int32_t*>(p.drawn),
           .workspace = cuda.sample_workspace()},
          cuda.stream()),
      "sample");
}

void Run(ExecContext& context, const SampleOp::Params& p) {
  CudaContext& cuda = CudaContext::Of(context);
  const int64_t stride = LogitsStride(p.vocab);
  for (size_t begin = 0; begin < p.rows.size();) {
    size_t end = begin + 1;
    while (end < p.rows.size() && p.rows[end].logits == p.rows[end - 1].logits + stride) ++end;
    RunTogether(cuda, p, begin, end - begin);
    begin = end;
  }
}

std::string Missing(const SampleOp::Desc& desc) { return MissingSample(desc.vocab); }

}  // namespace

void Register_sample(Registry& registry) { registry.Add<SampleOp>("sample", Missing, Run); }

}  // namespace tessera::kernels::cuda
