// The parts of commands that are plain functions: sequences of `plan`, figures of `bench`, texts
// that `doctor` reads, the admin socket's place.
#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/match.h"
#include "server/cli/bench_profile.h"
#include "server/cli/bench_stats.h"
#include "server/cli/error_text.h"
#include "server/cli/plan_sequences.h"
#include "server/cli/settings_flags.h"

namespace tessera::server::cli {
namespace {

TEST(PlanSequencesTest, ReadsChainTokensAndCount) {
  const auto group = ParseSequenceGroup("a:b=100*4", SequenceGroup::Phase::kDecode);
  ASSERT_TRUE(group.ok()) << group.status();
  EXPECT_EQ(group->chain, "a:b");
  EXPECT_EQ(group->tokens, 100U);
  EXPECT_EQ(group->count, 4U);
  EXPECT_EQ(ParseSequenceGroup("a=7", SequenceGroup::Phase::kPrefill)->count, 1U);
}

TEST(PlanSequencesTest, RefusesWhatItCannotRead) {
  for (const char* bad : {"", "a", "=5", "a=", "a=0", "a=5*", "a=5*0", "a=x", "a=5*4*2", "a=-1"}) {
    const auto group = ParseSequenceGroup(bad, SequenceGroup::Phase::kDecode);
    EXPECT_EQ(group.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_EQ(PartsOf(group.status()).where, "--decode") << bad;
  }
}

TEST(PlanSequencesTest, DecodingOnesComeFirstAndTheirNumberIsBounded) {
  const auto groups = ParseSequenceGroups({"a=1"}, {"b=2"});
  ASSERT_TRUE(groups.ok());
  ASSERT_EQ(groups->size(), 2U);
  EXPECT_EQ((*groups)[0].phase, SequenceGroup::Phase::kDecode);
  EXPECT_EQ((*groups)[1].phase, SequenceGroup::Phase::kPrefill);
  EXPECT_FALSE(ParseSequenceGroups({}, {}).ok());
  EXPECT_TRUE(ParseSequenceGroups({"a=1*4096"}, {}).ok());
  EXPECT_FALSE(ParseSequenceGroups({"a=1*4096"}, {"a=1"}).ok());
}

TEST(BenchStatsTest, PercentilesAreOfNearestRank) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Percentiles p = PercentilesOf(values);
  EXPECT_EQ(p.p50, 50);
  EXPECT_EQ(p.p95, 95);
  EXPECT_EQ(p.p99, 99);
  EXPECT_EQ(PercentilesOf({3}).p99, 3);
  EXPECT_EQ(PercentilesOf({}).p50, 0);
}

TEST(BenchStatsTest, RatesCountAllClients) {
  const std::vector<BenchSample> samples = {
      {.prompt_tokens = 4, .output_tokens = 11, .first_token_s = 0.5, .total_s = 1.5},
      {.prompt_tokens = 4, .output_tokens = 1, .first_token_s = 0.7, .total_s = 0.7}};
  const BenchLevel level = Summarize(2, samples, 2.0);
  EXPECT_EQ(level.finished, 2U);
  EXPECT_DOUBLE_EQ(level.output_tokens_per_s, 6.0);
  EXPECT_DOUBLE_EQ(level.requests_per_s, 1.0);
  EXPECT_DOUBLE_EQ(level.first_token_s.p50, 0.5);
  EXPECT_DOUBLE_EQ(level.first_token_s.p95, 0.7);
  EXPECT_DOUBLE_EQ(level.time_per_output_token_s.p95, 0.1);  // one token has no time between
}

TEST(ProfileTest, SharesAreOfAStepWithoutTheCounting) {
  scheduler::EngineProfile profile;
  profile.steps = 2;
  profile.rows = 16;
  profile.step_ns = 2'100'000;
  profile.own_ns = 100'000;
  profile.kernel_ns = 1'900'000;
  profile.overhead_ns = 200'000;
  profile.ops = {{.op = "linear",
                  .what = "weight Q4_1",
                  .calls = 8,
                  .ns = 1'500'000,
                  .work = {.bytes = 15'000'000, .ops = 600'000'000}},
                 {.op = "norm", .what = "kind rms", .calls = 4, .ns = 100'000, .work = {}}};
  const std::string table = ProfileTable(profile, 20);
  EXPECT_TRUE(absl::StrContains(table, "2 steps of 8.0 rows, 1000.0 us each")) << table;
  for (const char* part : {"4.0", "750.0", "75.0 %", "10.0", "50 %", "400.0", "between kernels",
                           "outside kernels", "5.0 %", "10.0 %"}) {
    EXPECT_TRUE(absl::StrContains(table, part)) << part << "\n" << table;
  }
}

TEST(ErrorTextTest, TakesAMessageApartAsItWasMade) {
  const ErrorParts all{.what = "bad; very", .where = "f:3", .why = "w: x", .fix = "do"};
  const ErrorParts some{.what = "bad", .fix = "do; then wait"};
  for (const ErrorParts& made : {all, some, ErrorParts{.what = "alone"}}) {
    const Status status = Error(absl::StatusCode::kInternal, made);
    const ErrorParts read = PartsOfText(status.message());
    EXPECT_EQ(read.what, made.what);
    EXPECT_EQ(read.where, made.where);
    EXPECT_EQ(read.why, made.why);
    EXPECT_EQ(read.fix, made.fix);
  }
  EXPECT_EQ(PartsOfText("").what, "");
}

TEST(SettingsFlagsTest, LaterFlagsOutrankEarlierOnes) {
  SettingsFlags flags;
  flags.set = {"store.root=/set", "engine.threads=3"};
  flags.zoo = "/flag";
  flags.more = {"engine.threads=5"};
  const auto settings = LoadFlaggedSettings(flags);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ((*settings)->store.root, "/flag");
  EXPECT_EQ((*settings)->engine.threads, 5);
}

TEST(SettingsFlagsTest, FindsTheAdminSocket) {
  SettingsFlags flags;
  flags.zoo = "/z";
  EXPECT_EQ(*AdminEndpointOf(flags, ""), "unix:/z/admin.sock");
  EXPECT_EQ(*AdminEndpointOf(flags, "/s"), "unix:/s");
  EXPECT_EQ(*AdminEndpointOf(flags, "unix:/s"), "unix:/s");
  flags.set = {"listen.admin.address=unix:/other"};
  EXPECT_EQ(*AdminEndpointOf(flags, ""), "unix:/other");
  flags.set = {"listen.admin.adress=unix:/other"};
  EXPECT_EQ(AdminEndpointOf(flags, "").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::server::cli
