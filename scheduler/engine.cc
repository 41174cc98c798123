#include "scheduler/engine.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "scheduler/engine_loop.h"
#include "scheduler/reason.h"

namespace tessera::scheduler {
namespace {

double MiB(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

struct Engine::Impl {
  Impl(const EngineOptions& given, std::shared_ptr<const kernels::Backend> chosen,
       std::unique_ptr<kvcache::KvCache> made_cache, EngineMetrics* metrics)
      : options(given),
        clock(given.clock != nullptr ? *given.clock : SystemClock()),
        backend(std::move(chosen)),
        pool({.threads = given.threads > 0 ? given.threads : kernels::ThreadPool::UsableCores()}),
        cache(std::move(made_cache)),
        inbox(given.inbox),
        loop(given, *backend, pool, *cache, inbox, metrics),
        engine_metrics(metrics),
        progress(clock.Now().time_since_epoch().count()) {}

  void Run();
  void Publish();
  // Runs `work` on the engine thread and waits for it; not from the engine thread.
  void OnEngine(std::function<void()> work);

  EngineOptions options;
  const Clock& clock;
  std::shared_ptr<const kernels::Backend> backend;
  kernels::ThreadPool pool;
  std::unique_ptr<kvcache::KvCache> cache;
  Inbox inbox;
  EngineLoop loop;
  EngineMetrics* engine_metrics;
  std::atomic<int64_t> progress;
  std::atomic<bool> stopping{false};
  bool stopped = false;        // engine thread
  kernels::OpProfile profile;  // engine thread, as is what follows
  EngineStats profiled_from;
  uint64_t published_evictions = 0;
  uint64_t published_uploads = 0;
  std::thread thread;
};

void Engine::Impl::Run() {
  bool busy = false;
  TimePoint next_publish = clock.Now();
  while (!stopped) {
    const TimePoint now = clock.Now();
    loop.TakeMessages(busy ? now : loop.NextWake());
    if (stopped) break;
    busy = loop.Step();
    const TimePoint after = clock.Now();
    progress.store(after.time_since_epoch().count(), std::memory_order_relaxed);
    if (!busy || after >= next_publish) {
      Publish();
      next_publish = after + std::chrono::milliseconds(50);
    }
  }
  loop.EndTurn();
}

void Engine::Impl::Publish() {
  if (engine_metrics == nullptr) return;
  const kvcache::CacheStats kv = cache->stats();
  if (kv.arena_bytes > 0) {
    engine_metrics->kv_usage_ratio.Set(static_cast<double>(kv.used_bytes) /
                                       static_cast<double>(kv.arena_bytes));
  }
  const std::pair<const char*, uint64_t> states[] = {
      {"used", kv.used_bytes}, {"cached", kv.cached_bytes}, {"free", kv.free_bytes}};
  for (const auto& [state, bytes] : states) {
    engine_metrics->kv_bytes.With({state}).Set(static_cast<double>(bytes));
  }
  engine_metrics->evictions_total.Inc(static_cast<double>(kv.evicted_pages - published_evictions));
  published_evictions = kv.evicted_pages;
  const uint64_t uploaded = backend->memory().uploaded_bytes();
  engine_metrics->uploaded_bytes_total.Inc(static_cast<double>(uploaded - published_uploads));
  published_uploads = uploaded;
}

void Engine::Impl::OnEngine(std::function<void()> work) {
  std::promise<void> done;
  inbox.PostCall([&] {
    work();
    done.set_value();
  });
  done.get_future().wait();
}

StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options,
                                                 std::shared_ptr<const kernels::Backend> backend,
                                                 EngineMetrics* metrics) {
  if (options.max_batch_tokens == 0 || options.max_running == 0) {
    return absl::InvalidArgumentError("max_batch_tokens and max_running must be at least 1");
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<kvcache::KvCache> cache,
                           kvcache::KvCache::Create({.arena_bytes = options.cache_bytes,
                                                     .prefix_reuse = options.prefix_reuse,
                                                     .memory = &backend->memory()}));
  auto impl = std::make_unique<Impl>(options, std::move(backend), std::move(cache), metrics);
  Impl* raw = impl.get();
  impl->thread = std::thread([raw] { raw->Run(); });
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Engine::~Engine() {
  impl_->inbox.CloseToSubmissions();
  impl_->inbox.PostCall([this] {
    impl_->loop.FailAll(WithReason(absl::UnavailableError("the server is stopping"), "DRAINING"));
    impl_->stopped = true;
  });
  impl_->thread.join();
}

Inbox& Engine::inbox() { return impl_->inbox; }

Status Engine::AddChain(ChainId id, const EngineChain& chain) {
  Status status;
  impl_->OnEngine([&] { status = impl_->loop.AddChain(id, chain); });
  return status;
}

void Engine::RemoveChain(ChainId id, std::function<void()> done) {
  impl_->inbox.PostCall([this, id, done = std::move(done)] { impl_->loop.RemoveChain(id, done); });
}

uint64_t Engine::MaxSequenceTokens(const blockzoo::Chain& chain) const {
  const kvcache::CacheLayout& layout = *chain.cache_layout();
  uint64_t fits = 0;
  uint64_t beyond = chain.max_context() + 1;
  while (fits + 1 < beyond) {
    const uint64_t middle = fits + (beyond - fits) / 2;
    (impl_->cache->CanEverFit(layout, middle) ? fits : beyond) = middle;
  }
  return fits;
}

Status Engine::CheckFits(const blockzoo::Chain& chain, uint64_t prompt_tokens,
                         uint64_t max_tokens) const {
  const uint64_t total = prompt_tokens + max_tokens;
  if (total > chain.max_context()) {
    return WithReason(
        absl::InvalidArgumentError(
            absl::StrCat("the prompt has ", prompt_tokens, " tokens and max_tokens is ", max_tokens,
                         "; together they exceed the context of ", chain.max_context(), " tokens")),
        "CONTEXT_LENGTH_EXCEEDED");
  }
  if (!impl_->cache->CanEverFit(*chain.cache_layout(), total)) {
    return WithReason(
        absl::InvalidArgumentError(absl::StrCat(
            "the prompt has ", prompt_tokens, " tokens and max_tokens is ", max_tokens,
            "; this server's cache holds ", MaxSequenceTokens(chain), " tokens of one sequence")),
        "CONTEXT_LENGTH_EXCEEDED");
  }
  return absl::OkStatus();
}

EngineStats Engine::Stats() const {
  EngineStats stats;
  impl_->OnEngine([&] { stats = impl_->loop.Stats(); });
  return stats;
}

void Engine::StartProfile() {
  impl_->OnEngine([this] {
    impl_->profile = {};
    impl_->profiled_from = impl_->loop.Stats();
    impl_->loop.SetProfile(&impl_->profile);
  });
}

EngineProfile Engine::TakeProfile() {
  EngineProfile taken;
  impl_->OnEngine([&] {
    impl_->loop.SetProfile(nullptr);
    const EngineStats from = impl_->profiled_from, to = impl_->loop.Stats();
    taken = {.ops = impl_->profile.Sorted(),
             .own_ns = impl_->profile.own_ns(),
             .steps = to.steps - from.steps,
             .rows = to.rows - from.rows,
             .step_ns = to.step_ns - from.step_ns,
             .kernel_ns = to.kernel_ns - from.kernel_ns,
             .overhead_ns = to.overhead_ns - from.overhead_ns};
  });
  return taken;
}

std::string Engine::DescribeNextPlan() {
  std::promise<std::string> text;
  impl_->inbox.PostCall(
      [&] { impl_->loop.WatchPlan([&](std::string plan) { text.set_value(std::move(plan)); }); });
  return text.get_future().get();
}

std::string Engine::DescribeMemory() const {
  uint64_t workspace = 0;
  impl_->OnEngine([&] { workspace = impl_->loop.workspace_bytes(); });
  std::string text = absl::StrFormat(
      "memory plan: KV cache %.1f MiB (pages of %d tokens), workspace %.1f MiB for %d rows a step, "
      "%d threads, backend %s",
      MiB(impl_->options.cache_bytes), kernels::kPageTokens, MiB(workspace),
      impl_->options.max_batch_tokens, impl_->pool.threads(), impl_->backend->name());
  const std::string taken = impl_->backend->memory().Describe();
  if (!taken.empty()) absl::StrAppend(&text, "; device memory: ", taken);
  return text;
}

TimePoint Engine::last_progress() const {
  return TimePoint(TimePoint::duration(impl_->progress.load(std::memory_order_relaxed)));
}

Status Engine::Drain(TimePoint until) {
  impl_->inbox.CloseToSubmissions();
  bool idle = false;
  while (!idle && impl_->clock.Now() < until) {
    impl_->OnEngine([&] { idle = impl_->loop.idle(); });
    if (!idle) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (idle && impl_->inbox.waiting_requests() == 0) return absl::OkStatus();
  impl_->OnEngine([&] {
    impl_->loop.FailAll(WithReason(absl::UnavailableError("the drain time is over"), "DRAINING"));
  });
  return absl::DeadlineExceededError("requests were still running when the drain time was over");
}

}  // namespace tessera::scheduler
