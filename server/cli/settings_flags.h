// Flags that outrank the configuration: `--zoo DIR` is `store.root=DIR`, `--set NAME=VALUE` any
// other setting. `serve`, `zoo`, `plan`, `check-config`, `doctor` and the admin commands share
// them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blockzoo/zoo.h"
#include "config/loader.h"
#include "server/cli/command_line.h"

namespace tessera::server::cli {

struct SettingsFlags {
  std::string config;  // path; empty: defaults, environment and flags alone
  std::optional<std::string> zoo;
  std::vector<std::string> set;
  // Filled by commands that have such flags of their own: "listen.grpc.address=…". The last wins.
  std::vector<std::string> more;
};

// Declares --config, --zoo and --set. `flags` must live until the command has run.
void AddSettingsFlags(Command& command, SettingsFlags* flags);
// Declares --config and --zoo, for commands that only need to find the zoo.
void AddZooFlags(Command& command, SettingsFlags* flags);

[[nodiscard]] Overrides OverridesOf(const SettingsFlags& flags);
// INVALID_ARGUMENT with every problem when the settings are not valid.
[[nodiscard]] StatusOr<std::shared_ptr<const Settings>> LoadFlaggedSettings(
    const SettingsFlags& flags);

// The folder that --zoo names; the configuration's store.root without it.
[[nodiscard]] StatusOr<std::string> ZooDirectoryOf(const SettingsFlags& flags);
// Opens that folder. With kReadOnly nothing in it changes; a zoo that is not there is NOT_FOUND,
// but for kCreate.
[[nodiscard]] StatusOr<std::unique_ptr<blockzoo::Zoo>> OpenFlaggedZoo(const SettingsFlags& flags,
                                                                      blockzoo::ZooMode mode);

// The admin socket: `given` (PATH or unix:PATH) if not empty, otherwise listen.admin.address,
// otherwise admin.sock in the zoo. As "unix:PATH".
[[nodiscard]] StatusOr<std::string> AdminEndpointOf(const SettingsFlags& flags,
                                                    const std::string& given);

}  // namespace tessera::server::cli
