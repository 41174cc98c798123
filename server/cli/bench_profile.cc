#include "server/cli/bench_profile.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/ceilings.h"
#include "server/cli/console.h"
#include "server/core/startup.h"

namespace tessera::server::cli {
namespace {

using Json = nlohmann::ordered_json;

double PerStepUs(const scheduler::EngineProfile& profile, uint64_t ns) {
  return static_cast<double>(ns) / static_cast<double>(std::max<uint64_t>(1, profile.steps)) / 1e3;
}

// Time inside blocks that no op has: arguments made, counters passed on.
uint64_t BetweenNs(const scheduler::EngineProfile& profile) {
  uint64_t inside = profile.own_ns;
  for (const kernels::OpProfile::Line& line : profile.ops) inside += line.ns;
  return profile.kernel_ns > inside ? profile.kernel_ns - inside : 0;
}

uint64_t StepNs(const scheduler::EngineProfile& profile) {
  return profile.step_ns > profile.own_ns ? profile.step_ns - profile.own_ns : 0;
}

std::string Rate(uint64_t amount, uint64_t ns) {
  if (amount == 0 || ns == 0) return "-";
  return absl::StrFormat("%.1f", static_cast<double>(amount) / static_cast<double>(ns));
}

Json PhaseJson(const scheduler::EngineProfile& profile) {
  Json out{{"steps", profile.steps},
           {"rows", profile.rows},
           {"step_us", PerStepUs(profile, StepNs(profile))},
           {"between_kernels_us", PerStepUs(profile, BetweenNs(profile))},
           {"outside_kernels_us", PerStepUs(profile, profile.overhead_ns)},
           {"counting_us", PerStepUs(profile, profile.own_ns)},
           {"ops", Json::array()}};
  for (const kernels::OpProfile::Line& line : profile.ops) {
    out["ops"].push_back({{"op", line.op},
                          {"what", line.what},
                          {"calls", line.calls},
                          {"ns", line.ns},
                          {"bytes", line.work.bytes},
                          {"operations", line.work.ops}});
  }
  return out;
}

struct Measured {
  double read_bytes_per_s = 0;
  std::vector<kernels::ArithmeticPeak> peaks;
  int threads = 0;
};

Measured MeasureCeilings(const Settings& settings, uint64_t bytes) {
  kernels::ThreadPool pool({.threads = settings.engine.threads > 0
                                           ? static_cast<int>(settings.engine.threads)
                                           : kernels::ThreadPool::UsableCores()});
  return {.read_bytes_per_s = kernels::MeasureReadRate(pool, bytes),
          .peaks = kernels::MeasurePeaks(pool, IsaOf(settings.engine.isa)),
          .threads = pool.threads()};
}

std::string CeilingText(const Measured& measured, uint64_t bytes) {
  std::string text = absl::StrFormat("%d threads; at most %.1f GB/s of %s", measured.threads,
                                     measured.read_bytes_per_s * 1e-9, HumanBytes(bytes));
  for (const kernels::ArithmeticPeak& peak : measured.peaks) {
    absl::StrAppendFormat(&text, ", %.0f GOP/s of %s", peak.ops_per_s * 1e-9, peak.name);
  }
  return text + "\n";
}

}  // namespace

std::string ProfileTable(const scheduler::EngineProfile& profile, double read_gb_s) {
  const double step = PerStepUs(profile, StepNs(profile));
  const auto share = [&](double us) {
    return step > 0 ? absl::StrFormat("%.1f %%", 100 * us / step) : "-";
  };
  std::vector<std::vector<std::string>> rows;
  const double steps = static_cast<double>(std::max<uint64_t>(1, profile.steps));
  for (const kernels::OpProfile::Line& line : profile.ops) {
    const double us = PerStepUs(profile, line.ns);
    const double gb_s =
        line.ns > 0 ? static_cast<double>(line.work.bytes) / static_cast<double>(line.ns) : 0;
    rows.push_back(
        {line.op, line.what, absl::StrFormat("%.1f", static_cast<double>(line.calls) / steps),
         absl::StrFormat("%.1f", us), share(us), Rate(line.work.bytes, line.ns),
         gb_s > 0 && read_gb_s > 0 ? absl::StrFormat("%.0f %%", 100 * gb_s / read_gb_s) : "-",
         Rate(line.work.ops, line.ns)});
  }
  const std::pair<const char*, uint64_t> rest[] = {{"between kernels", BetweenNs(profile)},
                                                   {"outside kernels", profile.overhead_ns}};
  for (const auto& [name, ns] : rest) {
    const double us = PerStepUs(profile, ns);
    rows.push_back({name, "", "", absl::StrFormat("%.1f", us), share(us), "-", "-", "-"});
  }
  return absl::StrFormat("%d steps of %.1f rows, %.1f us each (and %.1f us of counting)\n",
                         profile.steps, static_cast<double>(profile.rows) / steps, step,
                         PerStepUs(profile, profile.own_ns)) +
         Table({"OP", "WHAT", ">CALLS", ">US A STEP", ">SHARE", ">GB/S", ">OF PEAK", ">GOP/S"},
               rows);
}

Status ProfileInZoo(const SettingsFlags& flags, const std::string& chain,
                    const std::vector<uint32_t>& streams, LocalModel::ProfileLoad load,
                    ProfileForm form) {
  if (chain.empty()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "no chain is named", .fix = "give --model CHAIN"});
  }
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const Settings> settings,
                           LoadFlaggedSettings(flags));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<blockzoo::Zoo> zoo,
                           OpenZooToServe(settings->store));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<LocalModel> local,
                           LocalModel::Load(settings, zoo.get(), chain));
  if (!absl::StartsWith(local->backend().name(), "cpu/")) {
    return Error(absl::StatusCode::kUnimplemented,
                 {.what = absl::StrCat("a profile of ", local->backend().name()),
                  .why = "its kernels run on after their launch",
                  .fix = "give --set engine.device=cpu"});
  }
  const uint64_t bytes = local->model().weight_bytes;
  const Measured measured = MeasureCeilings(*settings, bytes);
  Json out{{"model", chain},
           {"backend", local->backend().name()},
           {"threads", measured.threads},
           {"read_gb_s", measured.read_bytes_per_s * 1e-9},
           {"levels", Json::array()}};
  for (const kernels::ArithmeticPeak& peak : measured.peaks) {
    out["peak_gop_s"][peak.name] = peak.ops_per_s * 1e-9;
  }
  if (form == ProfileForm::kTable) {
    Print(absl::StrCat(local->backend().name(), ", ", CeilingText(measured, bytes)));
  }
  for (const uint32_t level : streams) {
    load.streams = level;
    TESSERA_ASSIGN_OR_RETURN(const LocalModel::Phases phases, local->Profile(load));
    out["levels"].push_back({{"streams", level},
                             {"prompt", PhaseJson(phases.prompt)},
                             {"decode", PhaseJson(phases.decode)}});
    if (form == ProfileForm::kJson) continue;
    const double read = measured.read_bytes_per_s * 1e-9;
    Print(absl::StrCat("\n", level, " streams, prompts of ", load.prompt_tokens,
                       " tokens: ", ProfileTable(phases.prompt, read), "\n", level,
                       " streams, decoding: ", ProfileTable(phases.decode, read)));
  }
  if (form == ProfileForm::kJson) Print(out.dump(2) + "\n");
  return absl::OkStatus();
}

}  // namespace tessera::server::cli
