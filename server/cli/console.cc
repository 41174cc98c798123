#include "server/cli/console.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "config/environment.h"

namespace tessera::server::cli {
namespace {

absl::string_view CodeOf(Style style) {
  switch (style) {
    case Style::kBold:
      return "\x1b[1m";
    case Style::kDim:
      return "\x1b[2m";
    case Style::kRed:
      return "\x1b[1;31m";
    case Style::kGreen:
      return "\x1b[32m";
    case Style::kYellow:
      return "\x1b[33m";
    case Style::kPlain:
      break;
  }
  return "";
}

// Characters, of which each UTF-8 continuation byte is none.
size_t Width(absl::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

void Write(std::FILE* file, absl::string_view text) {
  std::fwrite(text.data(), 1, text.size(), file);
  std::fflush(file);
}

}  // namespace

bool IsTerminal(Stream stream) {
  return isatty(stream == Stream::kOut ? STDOUT_FILENO : STDERR_FILENO) == 1;
}

std::string Styled(Stream stream, Style style, absl::string_view text) {
  // https://no-color.org: set and not empty.
  static const bool kNoColor = !EnvironmentVariable("NO_COLOR").value_or("").empty();
  if (kNoColor || style == Style::kPlain || !IsTerminal(stream)) {
    return std::string(text);
  }
  return absl::StrCat(CodeOf(style), text, "\x1b[0m");
}

void Print(absl::string_view text) { Write(stdout, text); }

void PrintError(absl::string_view text) { Write(stderr, text); }

void PrintStatus(const Status& status) {
  const std::string lines = FourLines(status);
  const size_t end = std::min(lines.find('\n'), lines.size());
  std::string text = Styled(Stream::kErr, Style::kRed, absl::string_view(lines).substr(0, end));
  absl::StrAppend(&text, absl::string_view(lines).substr(end));
  if (text.empty() || text.back() != '\n') {
    text.push_back('\n');
  }
  PrintError(text);
}

std::string ForTerminal(absl::string_view text) {
  return IsTerminal(Stream::kOut) ? WithoutControls(text) : std::string(text);
}

std::string WithoutControls(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool c1 =
        byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (c1) {
      ++i;
    } else if ((byte >= 0x20 && byte != 0x7f) || byte == '\n' || byte == '\t') {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::string Table(const std::vector<std::string>& headers,
                  const std::vector<std::vector<std::string>>& rows) {
  const size_t columns = headers.size();
  std::vector<bool> right(columns);
  std::vector<std::vector<std::string>> lines(1);
  for (size_t c = 0; c < columns; ++c) {
    right[c] = !headers[c].empty() && headers[c][0] == '>';
    lines[0].push_back(right[c] ? headers[c].substr(1) : headers[c]);
  }
  lines.insert(lines.end(), rows.begin(), rows.end());
  std::vector<size_t> widths(columns, 0);
  for (const auto& line : lines) {
    for (size_t c = 0; c < columns && c < line.size(); ++c) {
      widths[c] = std::max(widths[c], Width(line[c]));
    }
  }
  std::string out;
  for (const auto& line : lines) {
    std::string text;
    for (size_t c = 0; c < columns && c < line.size(); ++c) {
      const std::string pad(widths[c] - Width(line[c]), ' ');
      absl::StrAppend(&text, c == 0 ? "" : "  ", right[c] ? pad : "", line[c], right[c] ? "" : pad);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    absl::StrAppend(&out, text, "\n");
  }
  return out;
}

std::string HumanBytes(uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrCat(bytes, " B") : absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string HumanCount(uint64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000) {
    return absl::StrFormat("%.2fB", value / 1e9);
  }
  if (count >= 1'000'000) {
    return absl::StrFormat("%.1fM", value / 1e6);
  }
  if (count >= 1000) {
    return absl::StrFormat("%d,%03d", count / 1000, count % 1000);
  }
  return absl::StrCat(count);
}

std::string HumanSeconds(double seconds) {
  if (seconds < 0.001) {
    return absl::StrFormat("%.0f us", seconds * 1e6);
  }
  if (seconds < 1) {
    return absl::StrFormat("%.1f ms", seconds * 1e3);
  }
  if (seconds < 120) {
    return absl::StrFormat("%.2f s", seconds);
  }
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 3600) {
    return absl::StrCat(whole / 60, " min ", whole % 60, " s");
  }
  if (whole < 86400) {
    return absl::StrCat(whole / 3600, " h ", whole % 3600 / 60, " min");
  }
  return absl::StrCat(whole / 86400, " d ", whole % 86400 / 3600, " h");
}

}  // namespace tessera::server::cli
