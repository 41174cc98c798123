// The tables of metrics: each metric is declared here once.
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/foundation/check.h"
#include "config/foundation/metrics.h"

namespace tessera {
namespace {

// One row: the member of `S` that holds the handle, and the declaration.
template <typename S>
struct MetricRow {
  std::variant<Counter S::*, Gauge S::*, Histogram S::*, Family<Counter> S::*, Family<Gauge> S::*,
               Family<Histogram> S::*>
      member;
  std::string name;
  std::string help;
  std::vector<std::string> labels;
  std::vector<double> buckets;

  [[nodiscard]] MetricSpec Spec() const {
    static constexpr MetricKind kKinds[] = {MetricKind::kCounter, MetricKind::kGauge,
                                            MetricKind::kHistogram};
    return {name, kKinds[member.index() % 3], help, labels, buckets};
  }
};

template <typename S>
struct Attach {
  S* owner;
  MetricsRegistry* registry;
  size_t metric;

  void operator()(Counter S::*member) const { owner->*member = registry->CounterOf(metric, {}); }
  void operator()(Gauge S::*member) const { owner->*member = registry->GaugeOf(metric, {}); }
  void operator()(Histogram S::*member) const {
    owner->*member = registry->HistogramOf(metric, {});
  }
  template <typename Handle>
  void operator()(Family<Handle> S::*member) const {
    owner->*member = Family<Handle>(registry, metric);
  }
};

template <typename S>
void AttachAll(const std::vector<MetricRow<S>>& table, S* owner, MetricsRegistry* registry) {
  for (const MetricRow<S>& row : table) {
    std::visit(Attach<S>{owner, registry, registry->Declare(row.Spec())}, row.member);
  }
}

// Supersets of the field's usual buckets, finer below: a 4 ms token must not fall into the first.
const std::vector<double> kTokenSeconds = {.0005, .001, .002, .003, .005, .0075, .01, .025, .05,
                                           .075,  .1,   .15,  .2,   .3,   .4,    .5,  .75,  1,
                                           2.5,   5,    7.5,  10,   20,   40,    80};
const std::vector<double> kFirstTokenSeconds = {.001, .005, .01, .02, .04, .06, .08, .1,
                                                .25,  .5,   .75, 1,   2.5, 5,   7.5, 10,
                                                20,   40,   80,  160, 640, 2560};
const std::vector<double> kRequestSeconds = {.05, .1,  .2,  .3,  .5,  .8,  1,    1.5,
                                             2,   2.5, 5,   10,  15,  20,  30,   40,
                                             50,  60,  120, 240, 480, 960, 1920, 7680};
const std::vector<double> kPhaseSeconds = {.001, .005, .01, .02, .05, .1,  .2,   .3,  .5, .8,
                                           1,    1.5,  2,   2.5, 5,   10,  15,   20,  30, 40,
                                           50,   60,   120, 240, 480, 960, 1920, 7680};
const std::vector<double> kStepSeconds = {.0001, .0002, .0005, .001, .002, .003, .005, .0075, .01,
                                          .02,   .05,   .1,    .2,   .5,   1,    2,    5,     10};
const std::vector<double> kGapSeconds = {.00001, .00002, .00005, .0001, .0002, .0005,
                                         .001,   .002,   .005,   .01,   .1,    1};
const std::vector<double> kRows = {1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024};

// 1-2-5 up to a million tokens of context.
std::vector<double> TokenBuckets() {
  std::vector<double> buckets;
  for (double decade = 1; decade < 1e6; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) buckets.push_back(decade * step);
  }
  buckets.push_back(1e6);
  return buckets;
}

using EngineRows = std::vector<MetricRow<EngineMetrics>>;

// Queue and cache as they stand.
EngineRows StateRows() {
  using M = EngineMetrics;
  return {
      {&M::requests_running, "requests_running", "Requests that the engine computes", {"model"}},
      {&M::requests_waiting, "requests_waiting", "Requests queued before the engine", {"model"}},
      {&M::waiting_tokens, "waiting_tokens", "Prompt tokens queued", {"model"}},
      {&M::kv_bytes, "kv_bytes", "Bytes of the cache by state: used, cached, free", {"state"}},
      {&M::kv_usage_ratio, "kv_usage_ratio",
       "Share of the cache's pages that running requests use"},
      {&M::cache_config_info,
       "cache_config_info",
       "The cache's shape in labels; the value is 1",
       {"block_size", "num_gpu_blocks"}},
      {&M::tokens_total,
       "tokens_total",
       "Tokens by kind: prompt, cached (prompt tokens not computed), completion",
       {"model", "kind"}},
      {&M::prefix_cache_queries_tokens_total,
       "prefix_cache_queries_tokens_total",
       "Prompt tokens looked up in the prefix index",
       {"model"}},
      {&M::prefix_cache_hits_tokens_total,
       "prefix_cache_hits_tokens_total",
       "Prompt tokens found in the prefix index",
       {"model"}},
  };
}

// One observation for each request or token.
EngineRows RequestRows() {
  using M = EngineMetrics;
  return {
      {&M::ttft_seconds,
       "ttft_seconds",
       "From arrival to the first token",
       {"model"},
       kFirstTokenSeconds},
      {&M::itl_seconds, "itl_seconds", "Between two tokens of a request", {"model"}, kTokenSeconds},
      {&M::tpot_seconds,
       "tpot_seconds",
       "A request's mean time per token after the first",
       {"model"},
       kTokenSeconds},
      {&M::e2e_seconds, "e2e_seconds", "From arrival to the end", {"model"}, kRequestSeconds},
      {&M::queue_seconds,
       "queue_seconds",
       "Waiting before the first step",
       {"model"},
       kPhaseSeconds},
      {&M::prefill_seconds,
       "prefill_seconds",
       "From the first step to the first token",
       {"model"},
       kPhaseSeconds},
      {&M::decode_seconds,
       "decode_seconds",
       "From the first token to the end",
       {"model"},
       kPhaseSeconds},
      {&M::prompt_tokens, "prompt_tokens", "Prompt tokens of a request", {"model"}, TokenBuckets()},
      {&M::completion_tokens,
       "completion_tokens",
       "Generated tokens of a request",
       {"model"},
       TokenBuckets()},
  };
}

// One observation for each step, and what a step had to give up.
EngineRows StepRows() {
  using M = EngineMetrics;
  return {
      {&M::batch_size, "batch_size", "Sequences in a step", {}, kRows},
      {&M::step_tokens, "step_tokens", "Tokens computed in a step", {}, TokenBuckets()},
      {&M::step_seconds,
       "step_seconds",
       "Time of a step by phase: plan, forward, sample, commit",
       {"phase"},
       kStepSeconds},
      {&M::step_gap_seconds,
       "step_gap_seconds",
       "Between two steps with work ready",
       {},
       kGapSeconds},
      {&M::preemptions_total, "preemptions_total", "Sequences sent back to wait", {"model"}},
      {&M::evictions_total, "evictions_total", "Cached pages given up for new ones"},
      {&M::uploaded_bytes_total, "uploaded_bytes_total",
       "Bytes that went over the link to a device when chains were loaded"},
  };
}

const EngineRows& EngineTable() {
  static const auto* table = [] {
    auto* rows = new EngineRows(StateRows());
    for (const EngineRows& more : {RequestRows(), StepRows()}) {
      rows->insert(rows->end(), more.begin(), more.end());
    }
    return rows;
  }();
  return *table;
}

const std::vector<MetricRow<ServerMetrics>>& ServerTable() {
  using M = ServerMetrics;
  static const auto* table = new std::vector<MetricRow<M>>{
      {&M::requests_total,
       "requests_total",
       "Finished requests by status code and finish reason",
       {"model", "code", "finish_reason"}},
      {&M::admission_rejections_total,
       "admission_rejections_total",
       "Requests refused before the engine, by reason",
       {"reason"}},
      {&M::streams_parked, "streams_parked", "Streams whose reader is behind and that wait for it"},
      {&M::slow_consumer_aborts_total, "slow_consumer_aborts_total",
       "Streams ended because their reader stayed behind"},
      {&M::store_bytes, "store_bytes", "Bytes in the block zoo"},
      {&M::config_generation, "config_generation", "Generation of the settings in force"},
      {&M::config_last_reload_success, "config_last_reload_success",
       "1 if the last reload was taken, 0 if it was refused"},
      {&M::config_last_reload_success_timestamp_seconds,
       "config_last_reload_success_timestamp_seconds",
       "When settings were last taken, in seconds since 1970"},
      {&M::build_info,
       "build_info",
       "The build in labels; the value is 1",
       {"version", "revision"}},
  };
  return *table;
}

template <typename S>
std::vector<MetricSpec> SpecsOf(const std::vector<MetricRow<S>>& table) {
  std::vector<MetricSpec> specs;
  for (const MetricRow<S>& row : table) specs.push_back(row.Spec());
  return specs;
}

absl::string_view KindName(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter:
      return "counter";
    case MetricKind::kGauge:
      return "gauge";
    case MetricKind::kHistogram:
      return "histogram";
  }
  return "";
}

}  // namespace

EngineMetrics::EngineMetrics(MetricsRegistry* registry) {
  AttachAll(EngineTable(), this, registry);
}

ServerMetrics::ServerMetrics(MetricsRegistry* registry) {
  AttachAll(ServerTable(), this, registry);
}

ModelMetrics::ModelMetrics(const EngineMetrics& engine, absl::string_view model)
    : requests_running(engine.requests_running.With({model})),
      requests_waiting(engine.requests_waiting.With({model})),
      waiting_tokens(engine.waiting_tokens.With({model})),
      tokens_prompt(engine.tokens_total.With({model, "prompt"})),
      tokens_cached(engine.tokens_total.With({model, "cached"})),
      tokens_completion(engine.tokens_total.With({model, "completion"})),
      prefix_cache_queries_tokens(engine.prefix_cache_queries_tokens_total.With({model})),
      prefix_cache_hits_tokens(engine.prefix_cache_hits_tokens_total.With({model})),
      ttft_seconds(engine.ttft_seconds.With({model})),
      itl_seconds(engine.itl_seconds.With({model})),
      tpot_seconds(engine.tpot_seconds.With({model})),
      e2e_seconds(engine.e2e_seconds.With({model})),
      queue_seconds(engine.queue_seconds.With({model})),
      prefill_seconds(engine.prefill_seconds.With({model})),
      decode_seconds(engine.decode_seconds.With({model})),
      prompt_tokens(engine.prompt_tokens.With({model})),
      completion_tokens(engine.completion_tokens.With({model})),
      preemptions(engine.preemptions_total.With({model})) {}

std::vector<MetricSpec> EngineMetricSpecs() { return SpecsOf(EngineTable()); }
std::vector<MetricSpec> ServerMetricSpecs() { return SpecsOf(ServerTable()); }

std::string MetricsReference() {
  std::string page = "| metric | kind | labels | meaning |\n|---|---|---|---|\n";
  for (const auto& specs : {EngineMetricSpecs(), ServerMetricSpecs()}) {
    for (const MetricSpec& spec : specs) {
      absl::StrAppend(&page, "| `tessera_", spec.name, "` | ", KindName(spec.kind), " | ",
                      absl::StrJoin(spec.labels, ", "), " | ", spec.help, " |\n");
    }
  }
  return page;
}

}  // namespace tessera
