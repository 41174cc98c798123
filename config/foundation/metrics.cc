#include "config/foundation/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"

namespace tessera {
namespace {

constexpr char kPrefix[] = "tessera_";
constexpr char kOther[] = "other";

using AnyFamily =
    std::variant<prometheus::Family<prometheus::Counter>*, prometheus::Family<prometheus::Gauge>*,
                 prometheus::Family<prometheus::Histogram>*>;

AnyFamily Register(const MetricSpec& spec, prometheus::Registry* registry) {
  const std::string name = absl::StrCat(kPrefix, spec.name);
  switch (spec.kind) {
    case MetricKind::kCounter:
      return &prometheus::BuildCounter().Name(name).Help(spec.help).Register(*registry);
    case MetricKind::kGauge:
      return &prometheus::BuildGauge().Name(name).Help(spec.help).Register(*registry);
    case MetricKind::kHistogram:
      break;
  }
  return &prometheus::BuildHistogram().Name(name).Help(spec.help).Register(*registry);
}

}  // namespace

struct MetricsRegistry::State {
  struct Metric {
    MetricSpec spec;
    AnyFamily family;
    std::set<std::vector<std::string>> series;
  };

  prometheus::Registry registry;
  mutable std::mutex mutex;
  std::vector<Metric> metrics;
  std::set<std::string> names;
  size_t series = 0;
  prometheus::Counter* dropped = nullptr;

  // The labels to use for `values`: as given, or all `other` once the registry is full.
  prometheus::Labels Admit(Metric* metric, std::span<const absl::string_view> values) {
    TESSERA_CHECK(values.size() == metric->spec.labels.size());
    std::vector<std::string> key(values.begin(), values.end());
    if (!metric->series.contains(key)) {
      if (series >= kMaxSeries && !key.empty()) {
        dropped->Increment();
        key.assign(key.size(), kOther);
      } else {
        ++series;
        metric->series.insert(key);
      }
    }
    prometheus::Labels labels;
    for (size_t i = 0; i < key.size(); ++i) labels[metric->spec.labels[i]] = key[i];
    return labels;
  }
};

void Counter::Inc(double by) const {
  if (series_ != nullptr) series_->Increment(by);
}
double Counter::Value() const { return series_ == nullptr ? 0 : series_->Value(); }
void Gauge::Set(double value) const {
  if (series_ != nullptr) series_->Set(value);
}
void Gauge::Add(double by) const {
  if (series_ != nullptr) series_->Increment(by);
}
double Gauge::Value() const { return series_ == nullptr ? 0 : series_->Value(); }
void Histogram::Observe(double value) const {
  if (series_ != nullptr) series_->Observe(value);
}

HistogramBatch::HistogramBatch(const Histogram& histogram) : histogram_(histogram) {
  if (histogram_.series_ == nullptr) return;
  const auto buckets = histogram_.series_->Collect().histogram.bucket;
  for (size_t i = 0; i + 1 < buckets.size(); ++i) bounds_.push_back(buckets[i].upper_bound);
  counts_.resize(buckets.size());
}
void HistogramBatch::Add(double value) {
  if (counts_.empty()) return;
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  ++counts_[static_cast<size_t>(bound - bounds_.begin())];
  sum_ += value;
}
void HistogramBatch::Flush() {
  if (counts_.empty()) return;
  histogram_.series_->ObserveMultiple(counts_, sum_);
  std::fill(counts_.begin(), counts_.end(), 0.0);
  sum_ = 0;
}

template <>
Counter Family<Counter>::With(std::initializer_list<absl::string_view> values) const {
  return registry_ == nullptr ? Counter() : registry_->CounterOf(metric_, values);
}
template <>
Gauge Family<Gauge>::With(std::initializer_list<absl::string_view> values) const {
  return registry_ == nullptr ? Gauge() : registry_->GaugeOf(metric_, values);
}
template <>
Histogram Family<Histogram>::With(std::initializer_list<absl::string_view> values) const {
  return registry_ == nullptr ? Histogram() : registry_->HistogramOf(metric_, values);
}

MetricsRegistry::MetricsRegistry() : state_(std::make_unique<State>()) {
  const size_t index = Declare({"metrics_dropped_series_total",
                                MetricKind::kCounter,
                                "Label sets folded into `other` because the registry was full",
                                {},
                                {}});
  state_->dropped =
      &std::get<prometheus::Family<prometheus::Counter>*>(state_->metrics[index].family)->Add({});
}

MetricsRegistry::~MetricsRegistry() = default;

size_t MetricsRegistry::Declare(const MetricSpec& spec) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  TESSERA_CHECK(state_->names.insert(spec.name).second);
  state_->metrics.push_back({spec, Register(spec, &state_->registry), {}});
  return state_->metrics.size() - 1;
}

Counter MetricsRegistry::CounterOf(size_t index, std::span<const absl::string_view> values) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  State::Metric& metric = state_->metrics.at(index);
  auto* family = std::get<prometheus::Family<prometheus::Counter>*>(metric.family);
  return Counter(&family->Add(state_->Admit(&metric, values)));
}

Gauge MetricsRegistry::GaugeOf(size_t index, std::span<const absl::string_view> values) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  State::Metric& metric = state_->metrics.at(index);
  auto* family = std::get<prometheus::Family<prometheus::Gauge>*>(metric.family);
  return Gauge(&family->Add(state_->Admit(&metric, values)));
}

Histogram MetricsRegistry::HistogramOf(size_t index, std::span<const absl::string_view> values) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  State::Metric& metric = state_->metrics.at(index);
  auto* family = std::get<prometheus::Family<prometheus::Histogram>*>(metric.family);
  return Histogram(&family->Add(state_->Admit(&metric, values), metric.spec.buckets));
}

std::string MetricsRegistry::Scrape() const {
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace tessera
