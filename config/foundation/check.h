// Checks for broken invariants: a bug in this program, never bad input. A failed check prints the
// expression with its place and aborts.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace tessera::internal {

[[noreturn]] inline void CheckFailed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "check failed: %s at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace tessera::internal

#define TESSERA_CHECK(condition)                                        \
  do {                                                                  \
    if (!(condition)) [[unlikely]] {                                    \
      ::tessera::internal::CheckFailed(#condition, __FILE__, __LINE__); \
    }                                                                   \
  } while (false)

// Costly checks: on in builds without NDEBUG, compiled but not run otherwise.
#ifdef NDEBUG
#define TESSERA_DCHECK(condition) \
  do {                            \
    if (false) {                  \
      TESSERA_CHECK(condition);   \
    }                             \
  } while (false)
#else
#define TESSERA_DCHECK(condition) TESSERA_CHECK(condition)
#endif
