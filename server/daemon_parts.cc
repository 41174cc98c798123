#include "server/daemon_parts.h"

#include <future>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "config/foundation/log.h"
#include "server/core/errors.h"
#include "server/core/output_pump.h"
#include "server/core/startup.h"

namespace tessera::server {
namespace {

constexpr const char* kVersion = "0.1.0";

scheduler::Inbox::Limits InboxLimits(const AdmissionSettings& admission) {
  scheduler::Inbox::Limits limits;
  limits.max_requests = static_cast<uint32_t>(admission.max_waiting_requests);
  limits.max_prompt_tokens = static_cast<uint64_t>(admission.max_waiting_tokens);
  return limits;
}

scheduler::Determinism DeterminismOf(DeterministicMode mode) {
  switch (mode) {
    case DeterministicMode::kOff:
      return scheduler::Determinism::kOff;
    case DeterministicMode::kOnRequest:
      return scheduler::Determinism::kOnRequest;
    case DeterministicMode::kAlways:
      return scheduler::Determinism::kAlways;
  }
  return scheduler::Determinism::kOff;
}

}  // namespace

StatusOr<std::unique_ptr<DaemonParts>> DaemonParts::Make(const DaemonOptions& options) {
  std::unique_ptr<DaemonParts> parts(new DaemonParts());
  const Settings& settings = *options.settings;
  parts->started_ = SystemClock().Now();
  parts->settings_ =
      std::make_unique<SettingsStore>(options.settings, options.config_path, options.overrides);
  parts->engine_metrics_ = std::make_unique<EngineMetrics>(&parts->registry_);
  parts->server_metrics_ = std::make_unique<ServerMetrics>(&parts->registry_);
  TESSERA_ASSIGN_OR_RETURN(parts->zoo_, OpenZooToServe(settings.store));
  TESSERA_RETURN_IF_ERROR(parts->MakeEngine(settings));
  parts->MakeFrontend();
  parts->settings_->AddListener(
      [raw = parts.get()](const Settings& changed) { raw->ApplyLive(changed); });
  parts->server_metrics_->config_last_reload_success.Set(1);
  parts->server_metrics_->config_last_reload_success_timestamp_seconds.Set(
      static_cast<double>(SystemClock().UnixSeconds()));
  parts->server_metrics_->build_info.With({kVersion, parts->backend_->name()}).Set(1);
  return parts;
}

DaemonParts::~DaemonParts() { Stop(SystemClock().Now()); }

Status DaemonParts::MakeEngine(const Settings& settings) {
  TESSERA_ASSIGN_OR_RETURN(backend_, MakeBackend(settings.engine, settings.store));
  LogInfo("device_chosen", {{"backend", backend_->name()}, {"why", WhyDevice(settings.engine)}});
  plan_ = PlanMemory(settings.engine, FreeMemoryBytes(*backend_));
  scheduler::EngineOptions options = EngineOptionsOf(settings.engine, *backend_);
  options.cache_bytes = plan_.cache_bytes;
  options.prefix_reuse = settings.prefix_cache.enabled;
  options.inbox = InboxLimits(settings.admission);
  options.park_above_tokens = static_cast<uint32_t>(settings.limits.stream_buffer.tokens);
  options.park_limit = settings.limits.stream_buffer.stall;
  options.determinism = DeterminismOf(settings.engine.deterministic);
  pool_ = std::make_unique<WorkPool>(WorkPool::Options{});
  options.on_device_lost = [this](const Status& status) {
    LogError("device_lost", {{"error", std::string(status.message())}});
    device_lost_ = true;
    UpdateHealth();
  };
  options.tell = [pool = pool_.get()](auto& ready) { PumpOutput(*pool, ready); };
  TESSERA_ASSIGN_OR_RETURN(engine_,
                           scheduler::Engine::Create(options, backend_, engine_metrics_.get()));
  return absl::OkStatus();
}

void DaemonParts::MakeFrontend() {
  const Settings& settings = *settings_->Current();
  timer_ = std::make_unique<Timer>();
  binder_ = std::make_unique<blockzoo::ChainBinder>(backend_, CacheChoiceOf(settings.engine.kv));
  source_ =
      std::make_unique<ZooModelSource>(ZooModelSource::Parts{.zoo = zoo_.get(),
                                                             .binder = binder_.get(),
                                                             .engine = engine_.get(),
                                                             .metrics = engine_metrics_.get(),
                                                             .settings = settings_.get(),
                                                             .pool = pool_.get(),
                                                             .weight_budget = plan_.weight_bytes});
  models_ = std::make_unique<ModelRegistry>(source_.get(), ModelRegistry::Options{});
  frontend_ = std::make_unique<Frontend>(Frontend::Parts{.engine = engine_.get(),
                                                         .registry = models_.get(),
                                                         .pool = pool_.get(),
                                                         .timer = timer_.get(),
                                                         .settings = settings_.get(),
                                                         .metrics = server_metrics_.get()});
}

Status DaemonParts::Preload() {
  const std::shared_ptr<const Settings> settings = settings_->Current();
  for (const ModelSettings& model : settings->models) {
    if (!model.preload) continue;
    std::promise<Status> loaded;
    models_->Reload(model.name, nullptr,
                    [&loaded](const StatusOr<ModelPtr>& got) { loaded.set_value(got.status()); });
    const Status status = loaded.get_future().get();
    if (!status.ok()) {
      return Annotate(status, absl::StrCat("model \"", model.name, "\" cannot be preloaded"));
    }
  }
  return absl::OkStatus();
}

void DaemonParts::ApplyLive(const Settings& settings) {
  ApplyLogSettings(settings);
  engine_->inbox().SetLimits(InboxLimits(settings.admission));
}

ReloadOutcome DaemonParts::Reload(ReloadMode mode) {
  ReloadOutcome outcome = settings_->ReloadFile(mode);
  if (mode == ReloadMode::kDryRun) return outcome;
  server_metrics_->config_last_reload_success.Set(outcome.accepted ? 1 : 0);
  if (outcome.accepted) {
    server_metrics_->config_last_reload_success_timestamp_seconds.Set(
        static_cast<double>(SystemClock().UnixSeconds()));
    LogInfo("config_reloaded",
            {{"generation", outcome.generation}, {"changes", outcome.changes.size()}});
  } else {
    LogError("config_refused", {{"problems", ProblemsText(outcome.problems)}});
  }
  return outcome;
}

void DaemonParts::SetIntake(Frontend::Intake intake) {
  frontend_->SetIntake(intake);
  UpdateHealth();
}

void DaemonParts::UpdateHealth() {
  if (!grpc_) return;
  using Health = GrpcServer::Health;
  const bool alive = !stalled_.load() && !device_lost_.load();
  const bool ready = alive && frontend_->intake() == Frontend::Intake::kOpen;
  grpc_->SetHealth("liveness", alive ? Health::kServing : Health::kNotServing);
  for (const char* name : {"", "readiness", "tessera.v1.InferenceService"}) {
    grpc_->SetHealth(name, ready ? Health::kServing : Health::kNotServing);
  }
}

void DaemonParts::UpdateGauges() {
  server_metrics_->streams_parked.Set(engine_->Stats().parked);
  server_metrics_->config_generation.Set(static_cast<double>(settings_->generation()));
}

void DaemonParts::Tick() {
  UpdateGauges();
  const Duration limit = settings_->Current()->engine.step_watchdog;
  const Duration since = SystemClock().Now() - engine_->last_progress();
  const bool busy = engine_->Stats().running > 0 || engine_->inbox().waiting_requests() > 0;
  const bool stalled = limit > Duration::zero() && busy && since > limit;
  if (stalled_.exchange(stalled) == stalled) return;
  if (stalled) {
    const scheduler::EngineStats stats = engine_->Stats();
    LogError("engine_stalled", {{"seconds", std::chrono::duration<double>(since).count()},
                                {"running", stats.running},
                                {"waiting", stats.waiting},
                                {"steps", stats.steps}});
  } else {
    LogInfo("engine_moves_again");
  }
  UpdateHealth();
}

void DaemonParts::Stop(TimePoint until) {
  if (std::exchange(stopped_, true)) return;
  if (models_) models_->SetListener(nullptr);
  if (http_) http_->CloseListener();
  if (grpc_) grpc_->Stop(until);
  if (http_) http_->Stop(until);
  if (admin_) admin_->Stop(SystemClock().Now());
  if (metrics_) metrics_->Stop(SystemClock().Now());
  http_.reset();
  metrics_.reset();
  // From here on nobody asks; what is left ends in the order of its dependence.
  if (timer_) timer_->Stop();
  frontend_.reset();
  if (pool_) pool_->Stop();
  models_.reset();
  engine_.reset();
}

}  // namespace tessera::server
