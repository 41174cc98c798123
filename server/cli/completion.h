// Shell completion scripts, made from the command tree.
#pragma once

#include <string>
#include <vector>

#include "server/cli/command_line.h"

namespace tessera::server::cli {

// Each completes commands, subcommands and options, and file names where a value is expected.
[[nodiscard]] std::string BashCompletion(const std::vector<CommandWord>& tree);
[[nodiscard]] std::string ZshCompletion(const std::vector<CommandWord>& tree);
[[nodiscard]] std::string FishCompletion(const std::vector<CommandWord>& tree);

}  // namespace tessera::server::cli
