#include "config/foundation/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace tessera {
namespace {

TEST(MetricsTest, EveryMetricIsDeclaredOnceAndWell) {
  std::set<std::string> names;
  for (const auto& specs : {EngineMetricSpecs(), ServerMetricSpecs()}) {
    for (const MetricSpec& spec : specs) {
      EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
      EXPECT_FALSE(spec.help.empty()) << spec.name;
      EXPECT_EQ(spec.kind == MetricKind::kCounter, absl::EndsWith(spec.name, "_total"))
          << spec.name;
      EXPECT_EQ(spec.kind == MetricKind::kHistogram, !spec.buckets.empty()) << spec.name;
      EXPECT_TRUE(std::is_sorted(spec.buckets.begin(), spec.buckets.end(), std::less_equal<>()))
          << spec.name;
    }
  }
  EXPECT_EQ(names.size(), 34u);
}

TEST(MetricsTest, HandlesShowInTheScrape) {
  MetricsRegistry registry;
  EngineMetrics engine(&registry);
  ServerMetrics server(&registry);
  const ModelMetrics model(engine, "m\"1");
  model.tokens_prompt.Inc(5);
  model.tokens_prompt.Inc();
  model.requests_running.Set(3);
  model.requests_running.Add(-1);
  model.ttft_seconds.Observe(0.004);
  engine.batch_size.Observe(8);
  engine.kv_bytes.With({"free"}).Set(10);
  server.requests_total.With({"m", "OK", "stop"}).Inc();
  server.config_generation.Set(2);
  const std::string text = registry.Scrape();
  for (const char* line :
       {"tessera_tokens_total{kind=\"prompt\",model=\"m\\\"1\"} 6",
        "tessera_requests_running{model=\"m\\\"1\"} 2",
        "tessera_ttft_seconds_bucket{model=\"m\\\"1\",le=\"0.005\"} 1",
        "tessera_ttft_seconds_bucket{model=\"m\\\"1\",le=\"0.001\"} 0",
        "tessera_batch_size_count 1", "tessera_kv_bytes{state=\"free\"} 10",
        "tessera_requests_total{code=\"OK\",finish_reason=\"stop\",model=\"m\"} 1",
        "tessera_config_generation 2", "# TYPE tessera_itl_seconds histogram",
        "tessera_evictions_total 0"}) {
    EXPECT_TRUE(absl::StrContains(text, absl::StrCat(line, "\n"))) << line << "\n" << text;
  }
  EXPECT_EQ(model.tokens_prompt.Value(), 6);
}

TEST(MetricsTest, TheSameLabelsAreTheSameSeries) {
  MetricsRegistry registry;
  const ServerMetrics server(&registry);
  server.admission_rejections_total.With({"queue_full"}).Inc();
  server.admission_rejections_total.With({"queue_full"}).Inc();
  EXPECT_EQ(server.admission_rejections_total.With({"queue_full"}).Value(), 2);
}

TEST(MetricsTest, DetachedHandlesCountNothing) {
  const ModelMetrics model;
  model.tokens_prompt.Inc();
  model.requests_running.Set(1);
  model.ttft_seconds.Observe(1);
  EXPECT_EQ(model.tokens_prompt.Value(), 0);
  EXPECT_EQ(Family<Gauge>().With({"x"}).Value(), 0);
}

TEST(MetricsTest, AFullRegistryFoldsNewSeries) {
  MetricsRegistry registry;
  const ServerMetrics server(&registry);
  for (size_t i = 0; i < MetricsRegistry::kMaxSeries + 10; ++i) {
    server.admission_rejections_total.With({absl::StrCat("reason", i)}).Inc();
  }
  EXPECT_GE(server.admission_rejections_total.With({"other"}).Value(), 10);
  EXPECT_EQ(server.admission_rejections_total.With({"reason0"}).Value(), 1);
  EXPECT_TRUE(absl::StrContains(registry.Scrape(), "tessera_metrics_dropped_series_total 1"));
}

TEST(MetricsTest, ThreadsMayShareHandles) {
  MetricsRegistry registry;
  const EngineMetrics engine(&registry);
  const auto work = [&] {
    const ModelMetrics model(engine, "m");
    for (int i = 0; i < 1000; ++i) {
      model.tokens_completion.Inc();
      model.itl_seconds.Observe(0.004);
    }
  };
  std::thread first(work);
  std::thread second(work);
  (void)registry.Scrape();
  first.join();
  second.join();
  EXPECT_EQ(ModelMetrics(engine, "m").tokens_completion.Value(), 2000);
  EXPECT_TRUE(absl::StrContains(registry.Scrape(), "tessera_itl_seconds_count{model=\"m\"} 2000"));
}

TEST(MetricsTest, ABatchCountsAsItsObservationsWould) {
  MetricsRegistry registry;
  const EngineMetrics engine(&registry);
  const ModelMetrics one(engine, "one");
  const ModelMetrics batched(engine, "batched");
  HistogramBatch batch(batched.itl_seconds);
  // On, below and above bounds of buckets, and past the last.
  for (const double value : {0.0, 0.001, 0.002, 0.0021, 0.004, 0.5, 1e6}) {
    one.itl_seconds.Observe(value);
    batch.Add(value);
  }
  EXPECT_TRUE(
      absl::StrContains(registry.Scrape(), "tessera_itl_seconds_count{model=\"batched\"} 0"));
  batch.Flush();
  batch.Flush();  // nothing new: counted once
  std::vector<std::string> lines[2];
  for (const absl::string_view line : absl::StrSplit(registry.Scrape(), '\n')) {
    if (!absl::StartsWith(line, "tessera_itl_seconds_")) continue;
    const bool is_one = absl::StrContains(line, "\"one\"");
    lines[is_one ? 0 : 1].push_back(absl::StrReplaceAll(line, {{"\"one\"", "\"batched\""}}));
  }
  EXPECT_GT(lines[0].size(), 5u);
  EXPECT_EQ(lines[0], lines[1]);
  HistogramBatch detached;
  detached.Add(1);
  detached.Flush();
}

TEST(MetricsTest, TheReferenceListsEveryMetric) {
  EXPECT_TRUE(absl::StrContains(
      MetricsReference(), "| `tessera_requests_total` | counter | model, code, finish_reason |"));
}

}  // namespace
}  // namespace tessera
