// How the program ends: stable numbers, documented in --help.
#pragma once

#include "config/foundation/status.h"

namespace tessera::server::cli {

enum class ExitCode : int {
  kOk = 0,
  kFailed = 1,       // anything that the others do not name
  kUsage = 2,        // the command line or an argument is wrong
  kUnavailable = 3,  // the daemon cannot be reached, is busy or draining
  kNotFound = 4,     // no such model, chain or file
  kDataLoss = 5,     // stored data is damaged
  kTimeout = 6,      // a deadline passed
  kInterrupted = 130,
};

[[nodiscard]] constexpr ExitCode ExitCodeOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return ExitCode::kOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return ExitCode::kUsage;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
      return ExitCode::kUnavailable;
    case absl::StatusCode::kNotFound:
      return ExitCode::kNotFound;
    case absl::StatusCode::kDataLoss:
      return ExitCode::kDataLoss;
    case absl::StatusCode::kDeadlineExceeded:
      return ExitCode::kTimeout;
    case absl::StatusCode::kCancelled:
      return ExitCode::kInterrupted;
    default:
      return ExitCode::kFailed;
  }
}

inline constexpr char kExitCodesHelp[] =
    "Exit codes: 0 done, 1 failed, 2 wrong usage or argument, 3 unavailable (not reached, busy,\n"
    "draining), 4 not found, 5 stored data is damaged, 6 timed out, 130 interrupted.";

}  // namespace tessera::server::cli
