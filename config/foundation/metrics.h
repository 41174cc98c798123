// Metrics: declared once in a table (`EngineMetricTable`, `ServerMetricTable`), used as a struct of
// handles made once, read as Prometheus text.
//
// A handle is one pointer; Inc, Set and Observe neither look anything up nor allocate, and are
// thread-safe. A family has labels: keep what `With` returns, do not call it per token. Handles and
// families must not outlive their `MetricsRegistry`.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace tessera {

// Handles start detached: they may be called, and count nothing, until a registry gives them a
// series.
class Counter {
 public:
  Counter() = default;
  explicit Counter(prometheus::Counter* series) : series_(series) {}
  void Inc(double by = 1) const;
  [[nodiscard]] double Value() const;

 private:
  prometheus::Counter* series_ = nullptr;
};

class Gauge {
 public:
  Gauge() = default;
  explicit Gauge(prometheus::Gauge* series) : series_(series) {}
  void Set(double value) const;
  void Add(double by) const;
  [[nodiscard]] double Value() const;

 private:
  prometheus::Gauge* series_ = nullptr;
};

class Histogram {
 public:
  Histogram() = default;
  explicit Histogram(prometheus::Histogram* series) : series_(series) {}
  void Observe(double value) const;

 private:
  friend class HistogramBatch;
  prometheus::Histogram* series_ = nullptr;
};

// Observations of one thread, collected and handed to their histogram at once: one lock for those
// of a step, not one each. Not thread-safe.
class HistogramBatch {
 public:
  HistogramBatch() = default;
  explicit HistogramBatch(const Histogram& histogram);
  void Add(double value);
  void Flush();

 private:
  Histogram histogram_;
  std::vector<double> bounds_;  // upper, ascending, without infinity
  std::vector<double> counts_;  // [bounds + 1]; empty: detached
  double sum_ = 0;
};

enum class MetricKind { kCounter, kGauge, kHistogram };

// One metric as declared. `name` has no prefix; the registry adds `tessera_`.
struct MetricSpec {
  std::string name;
  MetricKind kind;
  std::string help;
  std::vector<std::string> labels;
  std::vector<double> buckets;  // upper bounds, ascending; histograms only
};

class MetricsRegistry;

// A metric with labels. Copyable; thread-safe.
template <typename Handle>
class Family {
 public:
  Family() = default;
  Family(MetricsRegistry* registry, size_t metric) : registry_(registry), metric_(metric) {}
  // The series of these label values, in the order of the declaration; made on first use. Once the
  // registry is full, the series whose labels are all `other`, counted as dropped.
  [[nodiscard]] Handle With(std::initializer_list<absl::string_view> values) const;

 private:
  MetricsRegistry* registry_ = nullptr;
  size_t metric_ = 0;
};

class MetricsRegistry {
 public:
  // At most this many label sets, all metrics together.
  static constexpr size_t kMaxSeries = 10'000;

  MetricsRegistry();
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  // Declares a metric and returns its index. The name must be new.
  size_t Declare(const MetricSpec& spec);

  // Series of metric `index`; `values` has one value for each of its labels.
  [[nodiscard]] Counter CounterOf(size_t index, std::span<const absl::string_view> values);
  [[nodiscard]] Gauge GaugeOf(size_t index, std::span<const absl::string_view> values);
  [[nodiscard]] Histogram HistogramOf(size_t index, std::span<const absl::string_view> values);

  // Everything in Prometheus' text format.
  [[nodiscard]] std::string Scrape() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What the engine and its cache feed. Latencies are in seconds; a step serves every model, so its
// metrics have no model label.
struct EngineMetrics {
  explicit EngineMetrics(MetricsRegistry* registry);

  Family<Gauge> requests_running;
  Family<Gauge> requests_waiting;
  Family<Gauge> waiting_tokens;
  Family<Gauge> kv_bytes;
  Gauge kv_usage_ratio;
  Family<Gauge> cache_config_info;
  Family<Counter> tokens_total;
  Family<Counter> prefix_cache_queries_tokens_total;
  Family<Counter> prefix_cache_hits_tokens_total;
  Family<Histogram> ttft_seconds;
  Family<Histogram> itl_seconds;
  Family<Histogram> tpot_seconds;
  Family<Histogram> e2e_seconds;
  Family<Histogram> queue_seconds;
  Family<Histogram> prefill_seconds;
  Family<Histogram> decode_seconds;
  Family<Histogram> prompt_tokens;
  Family<Histogram> completion_tokens;
  Histogram batch_size;
  Histogram step_tokens;
  Family<Histogram> step_seconds;
  Histogram step_gap_seconds;
  Family<Counter> preemptions_total;
  Counter evictions_total;
  Counter uploaded_bytes_total;
};

// The series of one model, made when its chain is loaded.
struct ModelMetrics {
  ModelMetrics() = default;
  ModelMetrics(const EngineMetrics& engine, absl::string_view model);

  Gauge requests_running, requests_waiting, waiting_tokens;
  Counter tokens_prompt, tokens_cached, tokens_completion;
  Counter prefix_cache_queries_tokens, prefix_cache_hits_tokens;
  Histogram ttft_seconds, itl_seconds, tpot_seconds, e2e_seconds;
  Histogram queue_seconds, prefill_seconds, decode_seconds;
  Histogram prompt_tokens, completion_tokens;
  Counter preemptions;
};

// What the server feeds.
struct ServerMetrics {
  explicit ServerMetrics(MetricsRegistry* registry);

  Family<Counter> requests_total;
  Family<Counter> admission_rejections_total;
  Gauge streams_parked;
  Counter slow_consumer_aborts_total;
  Gauge store_bytes;
  Gauge config_generation;
  Gauge config_last_reload_success;
  Gauge config_last_reload_success_timestamp_seconds;
  Family<Gauge> build_info;
};

// The declarations, in the order of the structs.
[[nodiscard]] std::vector<MetricSpec> EngineMetricSpecs();
[[nodiscard]] std::vector<MetricSpec> ServerMetricSpecs();

// A markdown page that lists every metric.
[[nodiscard]] std::string MetricsReference();

}  // namespace tessera
