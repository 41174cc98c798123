// Checks of the machine: processor, limits, clock.
#include <sys/resource.h>
#include <sys/timex.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "config/foundation/clock.h"
#include "kernels/backend.h"
#include "server/cli/doctor_checks.h"
#include "server/core/startup.h"

namespace tessera::server::cli {
namespace {

// Connections that are neither clients nor listeners: zoo files, sockets, logs.
constexpr uint64_t kOwnFiles = 256;
// 2024-01-01: an earlier time means a clock that was never set.
constexpr int64_t kEarliestUnixSeconds = 1'704'067'200;

std::string ReadText(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

Finding CheckIsa(const Settings& settings) {
  const std::vector<kernels::CpuIsa> have = kernels::SupportedCpuIsas();
  if (have.empty()) {
    return {Verdict::kFailure, "processor", "it has neither AVX-512 nor AVX2 with FMA",
            "use a processor with AVX2; in a virtual machine, pass the host's processor on"};
  }
  const StatusOr<std::unique_ptr<kernels::Backend>> backend =
      kernels::MakeCpuBackend(IsaOf(settings.engine.isa));
  if (!backend.ok()) {
    return {Verdict::kFailure, "processor", std::string(backend.status().message()),
            "set engine.isa to auto"};
  }
  if (have.front() == kernels::CpuIsa::kAvx2) {
    return {Verdict::kWarning, "processor", "it has AVX2 but not AVX-512 with VNNI",
            "nothing needs it, but quantized models are faster there"};
  }
  return {Verdict::kGood, "processor", absl::StrCat("computes with ", (*backend)->name()), ""};
}

// A device that is asked for must be there.
Finding CheckDevice(const Settings& settings) {
  const std::string devices = absl::StrJoin(kernels::CudaDevices(), "; ");
  if (settings.engine.device == DeviceKind::kCpu) {
    return {Verdict::kGood, "device",
            devices.empty() ? "engine.device is cpu"
                            : absl::StrCat("engine.device is cpu; not used: ", devices),
            ""};
  }
  if (settings.engine.device == DeviceKind::kAuto && devices.empty()) {
    return {Verdict::kGood, "device", "no CUDA device: the processor computes", ""};
  }
  const StatusOr<std::shared_ptr<const kernels::Backend>> backend =
      MakeBackend(settings.engine, settings.store);
  if (!backend.ok()) {
    const ErrorParts parts = PartsOf(backend.status());
    return {Verdict::kFailure, "device", absl::StrCat(parts.what, ": ", parts.why), parts.fix};
  }
  if (absl::StartsWith((*backend)->name(), "cpu")) {
    return {Verdict::kWarning, "device",
            absl::StrCat("computes with ", (*backend)->name(), "; passed over: ", devices),
            "compute capability 8.0 to 9.0 is needed; engine.device_index names another device"};
  }
  return {Verdict::kGood, "device",
          absl::StrCat("computes with ", (*backend)->name(), "; ", devices), ""};
}

Finding CheckCores(const Settings& settings) {
  const uint32_t cores = std::max(1U, std::thread::hardware_concurrency());
  const double quota = QuotaCores(ReadText("/sys/fs/cgroup/cpu.max"));
  const auto threads =
      settings.engine.threads > 0 ? static_cast<uint32_t>(settings.engine.threads) : cores;
  if (threads > cores) {
    return {Verdict::kWarning, "cores",
            absl::StrCat("engine.threads is ", threads, ", more than the ", cores, " cores"),
            absl::StrCat("set engine.threads to auto or at most ", cores)};
  }
  if (quota > 0 && threads > quota) {
    return {
        Verdict::kWarning, "cores",
        absl::StrFormat("%d compute threads share a control group's %.1f cores", threads, quota),
        absl::StrCat("set engine.threads to ", std::max(1, static_cast<int>(quota)),
                     ", or raise the group's cpu.max")};
  }
  return {Verdict::kGood, "cores", absl::StrCat(threads, " compute threads on ", cores, " cores"),
          ""};
}

Finding CheckOpenFiles(const Settings& settings) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return {Verdict::kWarning, "files", "the limit of open files cannot be read", "check ulimit"};
  }
  const uint64_t wanted = static_cast<uint64_t>(settings.listen.http.max_connections) + kOwnFiles;
  if (limit.rlim_cur >= wanted) {
    return {Verdict::kGood, "files", absl::StrCat(limit.rlim_cur, " open files are allowed"), ""};
  }
  return {Verdict::kWarning, "files",
          absl::StrCat(limit.rlim_cur, " open files are allowed; listen.http.max_connections is ",
                       settings.listen.http.max_connections),
          absl::StrCat("raise the limit (ulimit -n ", wanted,
                       ", or LimitNOFILE in the unit), or lower listen.http.max_connections")};
}

Finding CheckClock() {
  timex state{};
  const int clock = adjtimex(&state);
  if (SystemClock().UnixSeconds() < kEarliestUnixSeconds) {
    return {Verdict::kFailure, "clock", "the machine's clock is years behind",
            "set it, for example with timedatectl set-ntp true"};
  }
  if (clock == TIME_ERROR || (clock >= 0 && (state.status & STA_UNSYNC) != 0)) {
    return {Verdict::kWarning, "clock", "the clock is not synchronized; times in logs may be off",
            "run a time service: timedatectl set-ntp true"};
  }
  return {Verdict::kGood, "clock", "the clock is set", ""};
}

}  // namespace

double QuotaCores(absl::string_view cpu_max) {
  const std::vector<absl::string_view> words =
      absl::StrSplit(absl::StripAsciiWhitespace(cpu_max), ' ');
  double quota = 0;
  double period = 0;
  if (words.size() != 2 || !absl::SimpleAtod(words[0], &quota) ||
      !absl::SimpleAtod(words[1], &period) || !(quota > 0) || !(period > 0)) {
    return 0;
  }
  return quota / period;
}

std::vector<Finding> CheckProcessor(const Settings& settings) {
  return {CheckIsa(settings), CheckCores(settings), CheckDevice(settings)};
}

std::vector<Finding> CheckLimits(const Settings& settings) {
  return {CheckOpenFiles(settings), CheckClock()};
}

}  // namespace tessera::server::cli
