// The program `tessera`.
#pragma once

namespace tessera::server::cli {

// Runs the command of `argv`; returns the exit code (exit_code.h).
[[nodiscard]] int Main(int argc, char** argv);

}  // namespace tessera::server::cli
