// tessera load, unload, ps, drain, resume, reload: the running daemon, over its admin socket.
#include <chrono>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/cli/client.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/settings_flags.h"

namespace tessera::server::cli {
namespace {

using Json = nlohmann::ordered_json;

struct AdminOptions {
  SettingsFlags flags;
  std::string admin;
  std::string name;
  double grace_s = 30;
  double timeout_s = 0;
  bool dry_run = false;
  bool json = false;
};

using AdminOptionsPtr = std::shared_ptr<AdminOptions>;

Duration FromSeconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

StatusOr<std::unique_ptr<AdminClient>> Connect(const AdminOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::string endpoint,
                           AdminEndpointOf(options.flags, options.admin));
  return std::make_unique<AdminClient>(endpoint);
}

Status RunLoad(const AdminOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<AdminClient> client, Connect(options));
  const bool bar = IsTerminal(Stream::kErr);
  bool drawn = false;
  const auto progress = [&](uint32_t done, uint32_t total) {
    if (!bar || total == 0) return;
    drawn = true;
    PrintError(absl::StrFormat("\rloading %s: %d of %d blocks", options.name, done, total));
  };
  const StatusOr<RemoteModel> model = client->Load(options.name, progress);
  if (drawn) PrintError("\n");
  TESSERA_RETURN_IF_ERROR(model.status());
  Print(absl::StrCat(model->name, " is ", model->state, ": ", model->blocks, " blocks, ",
                     HumanBytes(model->weight_bytes), " of weights, revision ",
                     model->revision.substr(0, 12), "\n"));
  return absl::OkStatus();
}

Status RunUnload(const AdminOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<AdminClient> client, Connect(options));
  TESSERA_ASSIGN_OR_RETURN(const uint32_t ended,
                           client->Unload(options.name, FromSeconds(options.grace_s)));
  Print(absl::StrCat("unloaded ", options.name,
                     ended == 0 ? "" : absl::StrCat("; ended ", ended, " requests"), "\n"));
  return absl::OkStatus();
}

std::string PsJson(const DaemonStats& stats, const std::vector<RemoteModel>& models) {
  Json out{{"state", stats.state == DaemonStats::State::kDraining ? "draining" : "serving"},
           {"uptime_s", stats.uptime_s},
           {"running", stats.running},
           {"waiting", stats.waiting},
           {"parked", stats.parked},
           {"open_requests", stats.open_requests},
           {"steps", stats.steps},
           {"rows", stats.rows},
           {"step_ns", stats.step_ns},
           {"kernel_ns", stats.kernel_ns},
           {"preemptions", stats.preemptions},
           {"computed_prompt_tokens", stats.computed_prompt_tokens},
           {"output_tokens", stats.output_tokens},
           {"weight_bytes", stats.weight_bytes},
           {"config_generation", stats.config_generation},
           {"models", Json::array()}};
  for (const RemoteModel& model : models) {
    Json entry{{"name", model.name},
               {"state", model.state},
               {"revision", model.revision},
               {"blocks", model.blocks},
               {"weight_bytes", model.weight_bytes},
               {"max_context", model.max_context},
               {"running", model.running}};
    if (!model.error.empty()) entry["error"] = model.error;
    out["models"].push_back(std::move(entry));
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string PsText(const DaemonStats& stats, const std::vector<RemoteModel>& models) {
  std::vector<std::vector<std::string>> rows;
  for (const RemoteModel& model : models) {
    const bool loaded = model.weight_bytes > 0;
    rows.push_back({model.name, model.state, absl::StrCat(model.blocks),
                    loaded ? HumanBytes(model.weight_bytes) : "-", absl::StrCat(model.max_context),
                    absl::StrCat(model.running), model.error});
  }
  const double step_ms = stats.steps == 0 ? 0
                                          : static_cast<double>(stats.step_ns) / 1e6 /
                                                static_cast<double>(stats.steps);
  const char* const state = stats.state == DaemonStats::State::kDraining ? "draining" : "serving";
  return absl::StrCat(
      Table({"MODEL", "STATE", ">BLOCKS", ">WEIGHTS", ">CONTEXT", ">RUNNING", "ERROR"}, rows), "\n",
      absl::StrFormat("%s for %s: %d running, %d waiting, %d parked; weights %s in all\n", state,
                      HumanSeconds(stats.uptime_s), stats.running, stats.waiting, stats.parked,
                      HumanBytes(stats.weight_bytes)),
      absl::StrFormat("%d steps of %.2f ms, %d tokens put out, %d prompt tokens computed, "
                      "%d preemptions\n",
                      stats.steps, step_ms, stats.output_tokens, stats.computed_prompt_tokens,
                      stats.preemptions));
}

Status RunPs(const AdminOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<AdminClient> client, Connect(options));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<RemoteModel> models, client->ListModels());
  TESSERA_ASSIGN_OR_RETURN(const DaemonStats stats, client->Stats());
  Print(options.json ? PsJson(stats, models) : PsText(stats, models));
  return absl::OkStatus();
}

Status RunDrain(const AdminOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<AdminClient> client, Connect(options));
  uint32_t last = 0;
  TESSERA_RETURN_IF_ERROR(client->Drain(FromSeconds(options.timeout_s), [&last](uint32_t open) {
    if (open == last || open == 0) return;
    last = open;
    PrintError(absl::StrCat(open, " requests still run\n"));
  }));
  Print("drained; `tessera resume` takes requests again\n");
  return absl::OkStatus();
}

Status RunResume(const AdminOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<AdminClient> client, Connect(options));
  TESSERA_RETURN_IF_ERROR(client->Resume());
  Print("serving\n");
  return absl::OkStatus();
}

Status RunReload(const AdminOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<AdminClient> client, Connect(options));
  TESSERA_ASSIGN_OR_RETURN(const ReloadResult result,
                           client->Reload(options.dry_run ? AdminClient::ReloadMode::kDryRun
                                                          : AdminClient::ReloadMode::kApply));
  for (const ConfigLine& change : result.changes) {
    Print(absl::StrCat(change.path, ": ", change.from, " -> ", change.to, "\n"));
  }
  switch (result.outcome) {
    case ReloadResult::Outcome::kApplied:
      Print(absl::StrCat("in force: generation ", result.generation, ", ", result.changes.size(),
                         " changes\n"));
      return absl::OkStatus();
    case ReloadResult::Outcome::kValid:
      Print(absl::StrCat("valid: ", result.changes.size(), " changes would be in force\n"));
      return absl::OkStatus();
    case ReloadResult::Outcome::kRefused:
      break;
  }
  ErrorParts parts{.what = absl::StrCat("the settings are refused; generation ", result.generation,
                                        " stays in force"),
                   .fix = "correct the file and reload again, or restart the daemon with it"};
  for (const std::string& problem : result.problems) {
    absl::StrAppend(&parts.why, parts.why.empty() ? "" : "\n", problem);
  }
  return Error(absl::StatusCode::kFailedPrecondition, parts);
}

// A command over the admin socket, with what tells where that is.
Command AddOne(CommandLine& line, const AdminOptionsPtr& options, absl::string_view name,
               absl::string_view summary, Status (*run)(const AdminOptions&)) {
  Command command = line.Add(name, summary);
  command.Option("--admin", &options->admin,
                 "the daemon's admin socket; default: listen.admin.address, or admin.sock in the "
                 "zoo");
  AddZooFlags(command, &options->flags);
  command.Run([options, run] { return run(*options); });
  return command;
}

}  // namespace

void AddAdminCommands(CommandLine& line) {
  const auto options = std::make_shared<AdminOptions>();
  Command load = AddOne(line, options, "load", "Load a chain into the running daemon", RunLoad);
  load.Argument("NAME", &options->name, "the model; a chain changed under its name is taken anew");
  load.Examples(
      "  tessera load --zoo ~/zoo smollm2\n\n"
      "Streams that run on an older revision end on it.");

  Command unload = AddOne(line, options, "unload", "Take a model out of memory", RunUnload);
  unload.Argument("NAME", &options->name, "the model");
  unload.Option("--grace", &options->grace_s, "seconds that running requests have to end");
  unload.Examples("  tessera unload --zoo ~/zoo smollm2 --grace 5");

  Command ps = AddOne(line, options, "ps", "What the daemon holds and does", RunPs);
  ps.Flag("--json", &options->json, "one JSON object instead of a table");
  ps.Examples("  tessera ps --zoo ~/zoo\n  tessera ps --admin unix:/run/tessera/admin.sock --json");

  Command drain =
      AddOne(line, options, "drain", "Take no new requests; wait for running ones", RunDrain);
  drain.Option("--timeout", &options->timeout_s,
               "seconds to wait; 0: server.drain_timeout; exit code 6 when requests still run");
  drain.Examples("  tessera drain --zoo ~/zoo --timeout 60 && tessera resume --zoo ~/zoo");

  AddOne(line, options, "resume", "Take requests again after drain", RunResume)
      .Examples("  tessera resume --zoo ~/zoo");

  Command reload = AddOne(line, options, "reload", "Read the settings file again", RunReload);
  reload.Flag("--dry-run", &options->dry_run, "say what would change");
  reload.Examples(
      "  tessera reload --zoo ~/zoo --dry-run\n\n"
      "A file with a problem, or with a change that needs a restart, is refused whole.");
}

}  // namespace tessera::server::cli
