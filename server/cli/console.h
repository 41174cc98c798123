// What people see: colors, tables, figures and errors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::server::cli {

enum class Stream : uint8_t { kOut, kErr };
enum class Style : uint8_t { kPlain, kBold, kDim, kRed, kGreen, kYellow };

[[nodiscard]] bool IsTerminal(Stream stream);
// `text` in `style` if the stream is a terminal and NO_COLOR is not set, otherwise as it is.
[[nodiscard]] std::string Styled(Stream stream, Style style, absl::string_view text);

// Writes all of `text` and flushes.
void Print(absl::string_view text);
void PrintError(absl::string_view text);
// The four lines of an error, on stderr.
void PrintStatus(const Status& status);

// `text` without control characters other than line ends and tabs.
[[nodiscard]] std::string WithoutControls(absl::string_view text);
// Text of a model for stdout: without control characters when that is a terminal, so that an answer
// cannot move the cursor; otherwise as it is.
[[nodiscard]] std::string ForTerminal(absl::string_view text);

// Columns padded to their widest cell, in characters; a column whose header begins with '>' is
// aligned right.
[[nodiscard]] std::string Table(const std::vector<std::string>& headers,
                                const std::vector<std::vector<std::string>>& rows);

// "98.1 MiB", "12 B".
[[nodiscard]] std::string HumanBytes(uint64_t bytes);
// "134.5M", "1,234".
[[nodiscard]] std::string HumanCount(uint64_t count);
// "12.3 ms", "4.56 s", "2 min 5 s", "3 d 4 h".
[[nodiscard]] std::string HumanSeconds(double seconds);

}  // namespace tessera::server::cli
