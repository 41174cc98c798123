// Checks of the machine: processor, limits, clock.
#include <sys/resource.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "config/foundation/clock.h"
#include "kernels/backend.h"
#include "kernels/ceilings.h"
#include "kernels/processors.h"
#include "kernels/thread_pool.h"
#include "server/cli/doctor_checks.h"
#include "server/core/startup.h"

namespace tessera::server::cli {
namespace {

// Connections that are neither clients nor listeners: zoo files, sockets, logs.
constexpr uint64_t kOwnFiles = 256;
// 2024-01-01: an earlier time means a clock that was never set.
constexpr int64_t kEarliestUnixSeconds = 1'704'067'200;

// Where the machine does not tell.
constexpr uint64_t kAssumedCacheBytes = uint64_t{32} << 20;
constexpr uint64_t kLargestRead = uint64_t{1} << 30;

Finding CheckIsa(const Settings& settings) {
  const std::vector<kernels::CpuIsa> have = kernels::SupportedCpuIsas();
  if (have.empty()) {
    return {Verdict::kFailure, "processor", "it has neither AVX-512 nor AVX2 with FMA",
            "use a processor with AVX2; in a virtual machine, pass the host's processor on"};
  }
  const StatusOr<std::unique_ptr<kernels::Backend>> backend =
      kernels::MakeCpuBackend(IsaOf(settings.engine.isa), ProcessorCostsFile(settings.store));
  if (!backend.ok()) {
    return {Verdict::kFailure, "processor", std::string(backend.status().message()),
            "set engine.isa to auto"};
  }
  const std::string have_text = absl::StrJoin(
      have, ", ",
      [](std::string* out, kernels::CpuIsa isa) { absl::StrAppend(out, kernels::NameOf(isa)); });
  if (have.front() == kernels::CpuIsa::kAvx2) {
    return {Verdict::kWarning, "processor", "it has AVX2 but not AVX-512 with VNNI",
            "nothing needs it, but quantized models are faster there"};
  }
  const bool widest = (*backend)->name() == absl::StrCat("cpu/", kernels::NameOf(have.front()));
  const std::string costs = (*backend)->DescribeCosts();
  return {Verdict::kGood, "processor",
          absl::StrCat("computes with ", (*backend)->name(),
                       widest ? ", the widest set that it has"
                              : ", as engine.isa or TESSERA_CPU_ISA asks; it has " + have_text,
                       costs.empty() ? "" : "; measured products of ", costs),
          ""};
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

int ThreadsOf(const Settings& settings) {
  return settings.engine.threads > 0 ? static_cast<int>(settings.engine.threads)
                                     : kernels::ThreadPool::UsableCores();
}

Finding CheckCores(const Settings& settings) {
  const std::vector<kernels::Processor> processors = kernels::AllowedProcessors();
  const int usable = kernels::ThreadPool::UsableProcessors();
  const int cores = kernels::CountCores(processors), nodes = kernels::CountNodes(processors);
  const std::optional<int> quota = kernels::ProcessorQuota();
  const int threads = ThreadsOf(settings);
  const std::string machine = absl::StrCat(
      cores, " cores (", processors.size(), " processors), ",
      quota.has_value() ? absl::StrCat("of which a control group allows ", *quota) : "no quota",
      ", ", nodes, nodes == 1 ? " memory node" : " memory nodes");
  if (threads > usable) {
    return {Verdict::kWarning, "cores",
            absl::StrCat("engine.threads is ", threads, ", more than there are: ", machine),
            absl::StrCat("set engine.threads to auto or at most ", usable)};
  }
  const std::string what = absl::StrCat(threads, " compute threads on ", machine);
  if (nodes > 1) {
    return {Verdict::kWarning, "cores", what,
            "weights lie on whichever node read them first: bind a daemon to each node (numactl)"};
  }
  return {Verdict::kGood, "cores", what, ""};
}

// What the engine's threads can do at most, measured now.
Finding CheckCeilings(const Settings& settings) {
  const int threads = ThreadsOf(settings);
  if (threads > kernels::ThreadPool::UsableProcessors()) {
    return {Verdict::kWarning, "ceilings", "not measured: more threads than processors",
            "see cores"};
  }
  kernels::ThreadPool pool({.threads = threads});
  const long reported = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const uint64_t cache = reported > 0 ? static_cast<uint64_t>(reported) : kAssumedCacheBytes;
  const uint64_t beyond = std::min(2 * cache + (uint64_t{64} << 20), kLargestRead);
  std::string text = absl::StrFormat(
      "%d threads read %.1f GB/s from memory, %.1f GB/s from half of a last-level cache of %d MiB",
      threads, kernels::MeasureReadRate(pool, beyond) * 1e-9,
      kernels::MeasureReadRate(pool, cache / 2) * 1e-9, cache >> 20);
  for (const kernels::ArithmeticPeak& peak :
       kernels::MeasurePeaks(pool, IsaOf(settings.engine.isa))) {
    absl::StrAppendFormat(&text, ", compute %.0f GOP/s of %s", peak.ops_per_s * 1e-9, peak.name);
  }
  return {Verdict::kGood, "ceilings", text, ""};
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

std::vector<Finding> CheckProcessor(const Settings& settings) {
  return {CheckIsa(settings), CheckCores(settings), CheckCeilings(settings), CheckDevice(settings)};
}

std::vector<Finding> CheckLimits(const Settings& settings) {
  return {CheckOpenFiles(settings), CheckClock()};
}

}  // namespace tessera::server::cli
