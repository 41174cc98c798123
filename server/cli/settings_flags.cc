#include "server/cli/settings_flags.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tessera::server::cli {

void AddSettingsFlags(Command& command, SettingsFlags* flags) {
  AddZooFlags(command, flags);
  command.Option("--set", &flags->set,
                 "any setting, as NAME=VALUE: --set engine.threads=2; may be repeated");
}

void AddZooFlags(Command& command, SettingsFlags* flags) {
  command.Option("--zoo", &flags->zoo, "folder of the block zoo; default: store.root");
  command.Option("-c,--config", &flags->config, "settings file, YAML or (named *.json) JSON");
}

Overrides OverridesOf(const SettingsFlags& flags) {
  Overrides overrides;
  overrides.environment = EnvironmentOverrides();
  overrides.flags = flags.set;
  if (flags.zoo) overrides.flags.push_back(absl::StrCat("store.root=", *flags.zoo));
  overrides.flags.insert(overrides.flags.end(), flags.more.begin(), flags.more.end());
  return overrides;
}

StatusOr<std::shared_ptr<const Settings>> LoadFlaggedSettings(const SettingsFlags& flags) {
  const LoadOutcome outcome = LoadSettings(flags.config, OverridesOf(flags));
  TESSERA_RETURN_IF_ERROR(outcome.status());
  return outcome.settings;
}

StatusOr<std::string> ZooDirectoryOf(const SettingsFlags& flags) {
  if (flags.zoo) return *flags.zoo;
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const Settings> settings,
                           LoadFlaggedSettings(flags));
  return settings->store.root;
}

StatusOr<std::unique_ptr<blockzoo::Zoo>> OpenFlaggedZoo(const SettingsFlags& flags,
                                                        blockzoo::ZooMode mode) {
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const Settings> settings,
                           LoadFlaggedSettings(flags));
  blockzoo::ZooOptions options;
  options.directory = settings->store.root;
  options.mode = mode;
  options.reserve_bytes = static_cast<uint64_t>(settings->store.reserve.bytes);
  return blockzoo::Zoo::Open(options);
}

StatusOr<std::string> AdminEndpointOf(const SettingsFlags& flags, const std::string& given) {
  const auto prefixed = [](const std::string& path) {
    return absl::StartsWith(path, "unix:") ? path : absl::StrCat("unix:", path);
  };
  if (!given.empty()) return prefixed(given);
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const Settings> settings,
                           LoadFlaggedSettings(flags));
  if (!settings->listen.admin.address.empty()) return prefixed(settings->listen.admin.address);
  return absl::StrCat("unix:", settings->store.root, "/admin.sock");
}

}  // namespace tessera::server::cli
