// The daemon's parts, in the order in which they depend on each other, and the listeners around
// them.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "blockzoo/chain.h"
#include "blockzoo/zoo.h"
#include "config/foundation/metrics.h"
#include "config/snapshot.h"
#include "kernels/backend.h"
#include "scheduler/engine.h"
#include "server/core/frontend.h"
#include "server/core/memory_plan.h"
#include "server/core/zoo_model_source.h"
#include "server/daemon.h"
#include "server/grpc/grpc_server.h"
#include "server/http/http_server.h"

namespace tessera::server {

// What serves: made by Make, ended by Stop. One thread makes and stops it.
class DaemonParts {
 public:
  [[nodiscard]] static StatusOr<std::unique_ptr<DaemonParts>> Make(const DaemonOptions& options);
  ~DaemonParts();

  // Loads what the settings ask for; waits for it.
  [[nodiscard]] Status Preload();
  [[nodiscard]] Status Listen(const DaemonOptions& options);
  // "grpc=… http=… metrics=… admin=…", with the ports that were taken.
  [[nodiscard]] std::string Addresses() const;

  // Opens or closes the intake, and readiness with it.
  void SetIntake(Frontend::Intake intake);
  ReloadOutcome Reload(ReloadMode mode);
  // Readiness, metrics and the engine's pulse; to be called about every second.
  void Tick();
  // Ends the listeners (calls that still run have until `until`), then the rest.
  void Stop(TimePoint until);

  [[nodiscard]] Frontend& frontend() { return *frontend_; }
  [[nodiscard]] SettingsStore& settings() { return *settings_; }
  [[nodiscard]] scheduler::Engine& engine() { return *engine_; }
  [[nodiscard]] const MemoryPlan& memory_plan() const { return plan_; }

 private:
  DaemonParts() = default;

  [[nodiscard]] Status MakeEngine(const Settings& settings);
  void MakeFrontend();
  [[nodiscard]] Status ListenGrpc(const Settings& settings);
  [[nodiscard]] Status ListenAdmin(const Settings& settings);
  [[nodiscard]] Status ListenHttp(const Settings& settings, const DaemonOptions& options);
  [[nodiscard]] Status ListenMetrics(const Settings& settings);
  void AnswerHealth(const std::shared_ptr<Exchange>& exchange) const;
  void ApplyLive(const Settings& settings);
  void UpdateHealth();
  void UpdateGauges();

  TimePoint started_{};
  MemoryPlan plan_;
  std::unique_ptr<SettingsStore> settings_;
  MetricsRegistry registry_;
  std::unique_ptr<EngineMetrics> engine_metrics_;
  std::unique_ptr<ServerMetrics> server_metrics_;
  std::unique_ptr<blockzoo::Zoo> zoo_;
  std::shared_ptr<const kernels::Backend> backend_;
  std::unique_ptr<WorkPool> pool_;
  std::unique_ptr<Timer> timer_;
  std::unique_ptr<scheduler::Engine> engine_;
  std::unique_ptr<blockzoo::ChainBinder> binder_;
  std::unique_ptr<ZooModelSource> source_;
  std::unique_ptr<ModelRegistry> models_;
  std::unique_ptr<Frontend> frontend_;
  std::unique_ptr<GrpcServer> grpc_;
  std::unique_ptr<GrpcServer> admin_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<HttpServer> metrics_;
  std::string grpc_address_, http_address_, metrics_address_, admin_path_;
  std::atomic<bool> stalled_{false};  // the engine makes no progress
  std::atomic<bool> device_lost_{false};
  bool stopped_ = false;
};

}  // namespace tessera::server
