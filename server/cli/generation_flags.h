// Flags that `chat` and `generate` share.
#pragma once

#include <string>
#include <vector>

#include "server/cli/client.h"
#include "server/cli/command_line.h"

namespace tessera::server::cli {

inline constexpr char kDefaultEndpoint[] = "127.0.0.1:50051";

struct GenerationFlags {
  std::string endpoint = kDefaultEndpoint;
  GenerateCall call;
  bool ignore_eos = false;
  bool no_prefix_cache = false;
  bool deterministic = false;
  double timeout_s = 0;
};

// `flags` must live until the command has run.
void AddGenerationFlags(Command& command, GenerationFlags* flags);
// The call that the flags ask for, without its input.
[[nodiscard]] GenerateCall CallOf(const GenerationFlags& flags);

// "1,2,3" as token ids; INVALID_ARGUMENT naming the part that is none.
[[nodiscard]] StatusOr<std::vector<uint32_t>> ParseTokenIds(absl::string_view text);

}  // namespace tessera::server::cli
