// tessera doctor: every check, each finding with its fix.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/doctor_checks.h"
#include "server/cli/settings_flags.h"
#include "server/cli/version.h"

namespace tessera::server::cli {
namespace {

using Json = nlohmann::ordered_json;

struct DoctorOptions {
  SettingsFlags flags;
  bool json = false;
};

const char* WordOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kGood:
      return "good";
    case Verdict::kWarning:
      return "warning";
    case Verdict::kFailure:
      return "failure";
  }
  return "";
}

Style StyleOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kGood:
      return Style::kGreen;
    case Verdict::kWarning:
      return Style::kYellow;
    case Verdict::kFailure:
      break;
  }
  return Style::kRed;
}

std::vector<Finding> AllFindings(const SettingsFlags& flags) {
  const LoadOutcome loaded = LoadSettings(flags.config, OverridesOf(flags));
  std::vector<Finding> findings;
  for (const Problem& problem : loaded.problems) {
    findings.push_back({Verdict::kFailure, "settings", problem.Text(),
                        "see tessera check-config; the checks below use the defaults"});
  }
  if (loaded.ok()) {
    findings.push_back({Verdict::kGood, "settings",
                        flags.config.empty() ? "the defaults, with flags and environment"
                                             : absl::StrCat(flags.config, " is in order"),
                        ""});
  }
  const Settings settings = loaded.ok() ? *loaded.settings : Settings();
  for (auto* check : {CheckProcessor, CheckZoo, CheckLimits, CheckAddresses}) {
    for (Finding& finding : check(settings)) findings.push_back(std::move(finding));
  }
  return findings;
}

std::string FindingsText(const std::vector<Finding>& findings) {
  std::string text = VersionText() + "\n";
  for (const Finding& finding : findings) {
    std::string word = WordOf(finding.verdict);
    word.resize(8, ' ');
    std::string check = finding.check;
    check.resize(std::max<size_t>(check.size(), 10), ' ');
    absl::StrAppend(&text, Styled(Stream::kOut, StyleOf(finding.verdict), word), " ", check, " ",
                    finding.what, "\n");
    if (!finding.fix.empty()) {
      absl::StrAppend(&text, std::string(20, ' '), Styled(Stream::kOut, Style::kDim, "fix: "),
                      finding.fix, "\n");
    }
  }
  return text;
}

std::string FindingsJson(const std::vector<Finding>& findings) {
  Json out{{"version", kVersion}, {"findings", Json::array()}};
  for (const Finding& finding : findings) {
    out["findings"].push_back({{"verdict", WordOf(finding.verdict)},
                               {"check", finding.check},
                               {"what", finding.what},
                               {"fix", finding.fix}});
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Status RunDoctor(const DoctorOptions& options) {
  const std::vector<Finding> findings = AllFindings(options.flags);
  const auto count = [&findings](Verdict verdict) {
    return std::count_if(findings.begin(), findings.end(),
                         [verdict](const Finding& f) { return f.verdict == verdict; });
  };
  const auto failures = count(Verdict::kFailure);
  if (options.json) {
    Print(FindingsJson(findings));
  } else {
    Print(absl::StrCat(FindingsText(findings), failures, " failures, ", count(Verdict::kWarning),
                       " warnings\n"));
  }
  // The findings have said why.
  return failures == 0 ? absl::OkStatus() : Status(absl::StatusCode::kFailedPrecondition, "");
}

}  // namespace

void AddDoctor(CommandLine& line) {
  const auto options = std::make_shared<DoctorOptions>();
  Command command = line.Add("doctor", "Find what would keep a daemon from serving well");
  AddSettingsFlags(command, &options->flags);
  command.Flag("--json", &options->json, "one JSON object instead of text");
  command.Examples(
      "  tessera doctor --zoo ~/zoo\n"
      "  tessera doctor --config tessera.yaml --json\n\n"
      "It checks what `serve` with the same flags would meet: settings, processor, zoo, disk,\n"
      "memory, limits, clock, addresses. It changes nothing. Exit code 1 if there is a failure;\n"
      "a warning alone is 0.");
  command.Run([options] { return RunDoctor(*options); });
}

}  // namespace tessera::server::cli
