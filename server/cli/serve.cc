// tessera serve: the daemon, in the foreground.
#include "absl/strings/str_cat.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/settings_flags.h"
#include "server/daemon.h"
#include "server/http/openai_api.h"

namespace tessera::server::cli {
namespace {

struct ServeOptions {
  SettingsFlags flags;
  std::optional<std::string> listen;
  std::optional<std::string> http;
  std::optional<std::string> metrics;
  std::optional<std::string> admin;
  std::optional<std::string> threads;
  std::optional<std::string> memory;
  bool print_config = false;
};

Status RunServe(const ServeOptions& options) {
  SettingsFlags flags = options.flags;
  const auto set = [&flags](absl::string_view name, const std::optional<std::string>& value) {
    if (value) flags.more.push_back(absl::StrCat(name, "=", *value));
  };
  set("listen.grpc.address", options.listen);
  set("listen.http.address", options.http);
  set("listen.metrics.address", options.metrics);
  set("listen.admin.address", options.admin);
  set("engine.threads", options.threads);
  set("engine.memory", options.memory);
  DaemonOptions daemon;
  daemon.config_path = flags.config;
  daemon.overrides = OverridesOf(flags);
  const LoadOutcome loaded = LoadSettings(daemon.config_path, daemon.overrides);
  TESSERA_RETURN_IF_ERROR(loaded.status());
  if (options.print_config) {
    Print(Dump(*loaded.settings, loaded.origins));
    return absl::OkStatus();
  }
  daemon.settings = loaded.settings;
  daemon.http_api = MakeOpenAiApi;
  return RunDaemon(daemon);
}

}  // namespace

void AddServe(CommandLine& line) {
  const auto options = std::make_shared<ServeOptions>();
  Command command = line.Add("serve", "Serve every chain of a zoo over gRPC and HTTP");
  AddSettingsFlags(command, &options->flags);
  command.Option("-l,--listen", &options->listen,
                 "gRPC address, HOST:PORT or unix:PATH (listen.grpc.address)");
  command.Option("--http", &options->http,
                 "OpenAI-compatible HTTP address; \"\" turns it off (listen.http.address)");
  command.Option("--metrics", &options->metrics,
                 "address of /metrics; \"\" turns it off (listen.metrics.address)");
  command.Option("--admin", &options->admin, "admin socket, unix:PATH (listen.admin.address)");
  command.Option("--threads", &options->threads, "compute threads, or auto (engine.threads)");
  command.Option("--memory", &options->memory,
                 "memory of the key-value cache, such as 2GiB, or auto (engine.memory)");
  command.Flag("--print-config", &options->print_config,
               "print every setting in force with its origin, and end");
  command.Examples(
      "  tessera serve --zoo ~/zoo\n"
      "  tessera serve --zoo ~/zoo --listen 127.0.0.1:50051 --http \"\" --threads 2\n"
      "  tessera serve --config tessera.yaml --set log.level=debug\n"
      "  tessera serve --config tessera.yaml --print-config\n\n"
      "Chains are loaded on first use, within the memory plan. Flags outrank the environment\n"
      "(TESSERA_ENGINE__THREADS=2), which outranks the file, which outranks the defaults.\n"
      "SIGHUP reloads the file. SIGTERM or Ctrl-C lets running requests finish; a second one\n"
      "ends at once.");
  command.Run([options] { return RunServe(*options); });
}

}  // namespace tessera::server::cli
