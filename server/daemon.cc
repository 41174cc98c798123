#include "server/daemon.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "config/foundation/log.h"
#include "server/core/errors.h"
#include "server/daemon_parts.h"

namespace tessera::server {
namespace {

constexpr Duration kTick = std::chrono::seconds(1);
constexpr Duration kDrainPoll = std::chrono::milliseconds(10);
constexpr Duration kTellTime = std::chrono::seconds(1);

sigset_t OurSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  return signals;
}

// The signal that came within `wait`, or 0.
int NextSignal(Duration wait) {
  const sigset_t signals = OurSignals();
  timespec time{};
  time.tv_sec = wait.count() / 1'000'000'000;
  time.tv_nsec = wait.count() % 1'000'000'000;
  return std::max(sigtimedwait(&signals, nullptr, &time), 0);
}

bool IsEnd(int signal) { return signal == SIGTERM || signal == SIGINT; }

void ServeUntilEnd(DaemonParts& parts) {
  while (true) {
    const int signal = NextSignal(kTick);
    if (IsEnd(signal)) return;
    if (signal == SIGHUP) parts.Reload(ReloadMode::kApply);
    parts.Tick();
  }
}

void WaitForReaders(DaemonParts& parts, TimePoint until) {
  while (parts.frontend().open_requests() > 0 && SystemClock().Now() < until) {
    std::this_thread::sleep_for(kDrainPoll);
  }
}

// Lets running requests end, until the timeout or a second signal; then tells the rest.
void DrainAndStop(DaemonParts& parts) {
  const TimePoint begin = SystemClock().Now();
  const Duration timeout = parts.settings().Current()->server.drain_timeout;
  parts.SetIntake(Frontend::Intake::kDraining);
  LogInfo("draining", {{"open_requests", parts.frontend().open_requests()},
                       {"timeout_seconds", std::chrono::duration<double>(timeout).count()}});
  TimePoint next_tick = begin + kTick;
  bool second = false;
  while (parts.frontend().open_requests() > 0 && SystemClock().Now() < begin + timeout) {
    second = IsEnd(NextSignal(kDrainPoll));
    if (second) break;
    if (SystemClock().Now() < next_tick) continue;
    next_tick += kTick;
    parts.Tick();
  }
  const uint32_t ended = parts.frontend().EndRequests(
      ChainId(), MakeError(Condition::kDraining, "the server is stopping"));
  if (ended > 0) {
    LogWarning("requests_ended",
               {{"count", ended}, {"why", second ? "second signal" : "drain timeout"}});
    WaitForReaders(parts, SystemClock().Now() + kTellTime);
  }
  parts.Stop(SystemClock().Now() + kTellTime);
  LogInfo("stopped",
          {{"seconds", std::chrono::duration<double>(SystemClock().Now() - begin).count()}});
}

}  // namespace

Status RunDaemon(const DaemonOptions& options) {
  const sigset_t signals = OurSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  SetLogInstance(options.settings->server.name);
  ApplyLogSettings(*options.settings);
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<DaemonParts> parts, DaemonParts::Make(options));
  TESSERA_RETURN_IF_ERROR(parts->Preload());
  TESSERA_RETURN_IF_ERROR(parts->Listen(options));
  std::printf("%s\n%s\ntessera ready %s\n", parts->memory_plan().Describe().c_str(),
              parts->engine().DescribeMemory().c_str(), parts->Addresses().c_str());
  std::fflush(stdout);
  ServeUntilEnd(*parts);
  DrainAndStop(*parts);
  return absl::OkStatus();
}

}  // namespace tessera::server
