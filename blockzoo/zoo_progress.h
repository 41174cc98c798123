// How far a long operation is: a bar with rate and time left on a terminal, plain lines elsewhere.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "config/foundation/clock.h"

namespace tessera::blockzoo {

enum class ProgressStyle : uint8_t {
  kBar,    // one line, drawn over itself ten times a second
  kLines,  // a line every three seconds
};

// What the work is counted in.
enum class ProgressUnit : uint8_t { kBytes, kTokens };

// kBar when `stream` is a terminal.
[[nodiscard]] ProgressStyle ProgressStyleOf(std::FILE* stream);

// "importing  [########........]  50%  46.9 of 93.8 MiB  310 MiB/s  0:01 left". `width` is the
// bar's.
[[nodiscard]] std::string ProgressLine(const std::string& title, uint64_t done, uint64_t total,
                                       double seconds, ProgressStyle style,
                                       ProgressUnit unit = ProgressUnit::kBytes);

// One thread. Writes to `stream`, which it does not own.
class ProgressPrinter {
 public:
  ProgressPrinter(std::string title, std::FILE* stream, ProgressStyle style, const Clock& clock,
                  ProgressUnit unit = ProgressUnit::kBytes);
  ~ProgressPrinter();
  ProgressPrinter(const ProgressPrinter&) = delete;
  ProgressPrinter& operator=(const ProgressPrinter&) = delete;

  void Update(uint64_t done, uint64_t total);

 private:
  const std::string title_;
  std::FILE* const stream_;
  const ProgressStyle style_;
  const ProgressUnit unit_;
  const Clock& clock_;
  const TimePoint start_;
  TimePoint last_;
  bool drawn_ = false;
};

}  // namespace tessera::blockzoo
