#include "kernels/op_profile.h"

#include <gtest/gtest.h>

#include "kernels/backend.h"
#include "kernels/catalog.h"

namespace tessera::kernels {
namespace {

TEST(OpProfileTest, AProductReadsItsWeightsOnce) {
  const LinearTask tasks[] = {{.out = 96, .row_count = 3}, {.out = 32, .row_count = 0}};
  LinearOp::Params params;
  params.in = 64;
  params.tasks = tasks;
  OpWork work = WorkOf(LinearOp::Desc{.weight = DType::kQ4_1, .in = 64, .out = 96}, params);
  EXPECT_EQ(work.bytes, 96u * 2 * 20);
  EXPECT_EQ(work.ops, 2u * 96 * 64 * 3);
  const std::byte up{};
  const LinearTask gated = {.out = 96, .row_count = 1, .up = &up};
  params.tasks = {&gated, 1};
  work = WorkOf(LinearOp::Desc{.weight = DType::kF32, .in = 64, .out = 96}, params);
  EXPECT_EQ(work.bytes, 2u * 96 * 64 * 4);
  EXPECT_EQ(work.ops, 2u * 2 * 96 * 64);
}

TEST(OpProfileTest, AttentionReadsWhatItsQueriesSee) {
  AttentionOp::Desc desc;
  desc.kv = {.dtype = DType::kF16, .kv_heads = 3, .head_dim = 64};
  AttentionRow row = {.q_begin = 0, .q_rows = 4, .position = 10};
  AttentionOp::Params params;
  params.q_heads = 9;
  params.plan.rows = {&row, 1};
  OpWork work = WorkOf(desc, params);
  EXPECT_EQ(work.bytes, 14u * 3 * 2 * 64 * 2);
  EXPECT_EQ(work.ops, (11u + 12 + 13 + 14) * 9 * 64 * 4);
  params.window = 5;
  work = WorkOf(desc, params);
  EXPECT_EQ(work.bytes, 8u * 3 * 2 * 64 * 2);
  EXPECT_EQ(work.ops, 5u * 4 * 9 * 64 * 4);
  row.kv_head = 1;
  params.window = 0;
  EXPECT_EQ(WorkOf(desc, params).bytes, 14u * 2 * 64 * 2);
}

TEST(OpProfileTest, LaunchesAreCountedWhileThereIsAProfile) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend(CpuIsa::kAuto).value();
  const auto kernel = backend->catalog().Find<ScaleLogitsOp>({.vocab = 32}).value();
  ThreadPool pool({.threads = 1});
  ExecContext context(pool, 64);
  std::vector<float> logits(32, 1.0F);
  ScaleLogitsOp::Params params;
  params.logits = logits.data();
  params.rows = 1;
  params.stride = params.vocab = 32;
  params.scale = 2;
  OpProfile profile;
  kernel(context, params);
  context.set_profile(&profile);
  kernel(context, params);
  kernel(context, params);
  context.set_profile(nullptr);
  kernel(context, params);
  EXPECT_EQ(logits[31], 16.0F);
  const std::vector<OpProfile::Line> lines = profile.Sorted();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].op, "scale_logits");
  EXPECT_EQ(lines[0].what, "vocab 32");
  EXPECT_EQ(lines[0].calls, 2u);
  EXPECT_GT(lines[0].ns, 0u);
}

}  // namespace
}  // namespace tessera::kernels
