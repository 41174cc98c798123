// Error values: absl::Status with an operator's message, and the macros that pass them on.
//
// An operator's error has four parts: what failed, where (file:line or field), why, and the fix.
// `Error()` renders them on one line as "what; where: W; why: Y; fix: F" (empty parts left out);
// the command line prints them on four.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

using absl::Status;
using absl::StatusOr;

// The parts of an operator's error. `what` must be set.
struct ErrorParts {
  std::string what;
  std::string where;
  std::string why;
  std::string fix;
};

// Builds a status of `code` whose parts `PartsOf` can take apart again.
[[nodiscard]] Status Error(absl::StatusCode code, const ErrorParts& parts);

// The parts of a status made by `Error`; any other status has its message as `what`.
[[nodiscard]] ErrorParts PartsOf(const Status& status);

// The four lines "error: what", "  where  …", "  why    …", "  fix    …" (empty parts left out).
[[nodiscard]] std::string FourLines(const Status& status);

// `status` with `prefix: ` before its message; code and payloads kept. OK stays OK.
[[nodiscard]] Status Annotate(const Status& status, absl::string_view prefix);

}  // namespace tessera

#define TESSERA_CONCAT_INNER(a, b) a##b
#define TESSERA_CONCAT(a, b) TESSERA_CONCAT_INNER(a, b)

// Returns the status of `expr` from the enclosing function when it is not OK.
#define TESSERA_RETURN_IF_ERROR(expr)        \
  do {                                       \
    ::absl::Status tessera_status_ = (expr); \
    if (!tessera_status_.ok()) {             \
      return tessera_status_;                \
    }                                        \
  } while (false)

// Declares or assigns `lhs` from a StatusOr, or returns its status.
#define TESSERA_ASSIGN_OR_RETURN(lhs, expr) \
  TESSERA_ASSIGN_OR_RETURN_INNER(TESSERA_CONCAT(tessera_statusor_, __LINE__), lhs, expr)
#define TESSERA_ASSIGN_OR_RETURN_INNER(name, lhs, expr) \
  auto name = (expr);                                   \
  if (!name.ok()) {                                     \
    return std::move(name).status();                    \
  }                                                     \
  lhs = std::move(name).value()
