#include "config/snapshot.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

constexpr TextFormat kYaml = TextFormat::kYaml;

SettingsStore StoreOf(absl::string_view yaml, const Overrides& overrides = {}) {
  return SettingsStore(LoadSettingsText(yaml, kYaml, "t.yaml", overrides).settings, "t.yaml",
                       overrides);
}

TEST(SnapshotTest, LiveChangesAreSwappedIn) {
  SettingsStore store = StoreOf("limits: {n: 2}");
  int64_t heard = 0;
  store.AddListener([&](const Settings& settings) { heard = settings.limits.n; });
  const std::shared_ptr<const Settings> before = store.Current();
  const ReloadOutcome outcome = store.Reload("limits: {n: 3}\nlog: {level: debug}", kYaml);
  ASSERT_TRUE(outcome.accepted) << ProblemsText(outcome.problems);
  EXPECT_TRUE(outcome.status().ok());
  EXPECT_EQ(outcome.changes.size(), 2u);
  EXPECT_EQ(outcome.generation, 2);
  EXPECT_EQ(store.generation(), 2);
  EXPECT_EQ(store.Current()->limits.n, 3);
  EXPECT_EQ(before->limits.n, 2) << "a snapshot in use does not change";
  EXPECT_EQ(heard, 3);
}

TEST(SnapshotTest, OneRestartFieldRefusesTheWhole) {
  SettingsStore store = StoreOf("limits: {n: 2}");
  const ReloadOutcome outcome =
      store.Reload("limits: {n: 3}\nengine:\n  threads: 2\n  isa: avx2\n", kYaml);
  EXPECT_FALSE(outcome.accepted);
  ASSERT_EQ(outcome.problems.size(), 2u);
  EXPECT_EQ(outcome.problems[0].Text(),
            "t.yaml:3:12: engine.threads: cannot change from auto to 2 while the server runs "
            "(restart the server, or set it back)");
  EXPECT_EQ(outcome.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(outcome.status().message(), "engine.isa"));
  EXPECT_EQ(store.Current()->limits.n, 2);
  EXPECT_EQ(store.generation(), 1);
}

TEST(SnapshotTest, BadTextChangesNothing) {
  SettingsStore store = StoreOf("limits: {n: 2}");
  EXPECT_FALSE(store.Reload("limits: {n: 0}", kYaml).accepted);
  EXPECT_FALSE(store.Reload("limits: {", kYaml).accepted);
  EXPECT_FALSE(store.ReloadFile().accepted) << "there is no t.yaml";
  EXPECT_EQ(store.Current()->limits.n, 2);
  EXPECT_EQ(store.generation(), 1);
}

TEST(SnapshotTest, ADryRunOnlyTells) {
  SettingsStore store = StoreOf("limits: {n: 2}");
  const ReloadOutcome outcome = store.Reload("limits: {n: 3}", kYaml, ReloadMode::kDryRun);
  EXPECT_TRUE(outcome.accepted);
  EXPECT_EQ(outcome.changes.size(), 1u);
  EXPECT_EQ(outcome.generation, 1);
  EXPECT_EQ(store.Current()->limits.n, 2);
}

TEST(SnapshotTest, OverridesOutlastAReload) {
  SettingsStore store = StoreOf("limits: {n: 2}", {{}, {"limits.n=7"}});
  EXPECT_EQ(store.Current()->limits.n, 7);
  const ReloadOutcome outcome = store.Reload("limits: {n: 3}", kYaml);
  EXPECT_TRUE(outcome.accepted);
  EXPECT_TRUE(outcome.changes.empty());
  EXPECT_EQ(store.Current()->limits.n, 7);
}

TEST(SnapshotTest, ReadersSeeWholeSnapshots) {
  SettingsStore store = StoreOf("limits: {n: 1, logprobs: 1}");
  std::atomic<bool> stop{false};
  std::atomic<int> torn{0};
  std::thread reader([&] {
    while (!stop) {
      const auto settings = store.Current();
      if (settings->limits.n != settings->limits.logprobs) ++torn;
    }
  });
  for (int i = 2; i < 100; ++i) {
    const std::string text = absl::StrCat("limits: {n: ", i, ", logprobs: ", i, "}");
    EXPECT_TRUE(store.Reload(text, kYaml).accepted);
  }
  stop = true;
  reader.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(store.generation(), 99);
}

TEST(SnapshotTest, LogSettingsAreApplied) {
  Settings settings;
  settings.log.level = LogLevel::kError;
  ApplyLogSettings(settings);
  EXPECT_EQ(GetLogLevel(), LogLevel::kError);
  settings.log.level = LogLevel::kInfo;
  settings.server.name = "";
  ApplyLogSettings(settings);
  EXPECT_EQ(GetLogLevel(), LogLevel::kInfo);
}

}  // namespace
}  // namespace tessera
