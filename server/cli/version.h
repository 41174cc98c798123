// What this build calls itself.
#pragma once

#include <string>

namespace tessera::server::cli {

inline constexpr char kVersion[] = "0.1.0";

// "tessera 0.1.0"
[[nodiscard]] inline std::string VersionText() { return std::string("tessera ") + kVersion; }

}  // namespace tessera::server::cli
