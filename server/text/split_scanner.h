// Hand-written scanners for the splitting patterns of the large model families. Each finds exactly
// what its pattern finds, without a regular-expression engine, and in linear time.
#pragma once

#include <cstddef>
#include <span>

#include "absl/strings/string_view.h"

namespace tessera::server {

// The first match of a pattern at or after a position; never empty when found.
struct PatternMatch {
  bool found = false;
  size_t begin = 0;
  size_t end = 0;
};

// `subject` is valid UTF-8 and `from` a character's start.
using SplitScanner = PatternMatch (*)(absl::string_view subject, size_t from);

// What parts of tokenizer.json split at that are no patterns. Each punctuation character, white
// space and digit is a match of its own, but for ScanDigits: runs of digits.
PatternMatch ScanBertPunctuation(absl::string_view subject, size_t from);
PatternMatch ScanWhiteSpace(absl::string_view subject, size_t from);
PatternMatch ScanDigit(absl::string_view subject, size_t from);
PatternMatch ScanDigits(absl::string_view subject, size_t from);
// \w+|[^\w\s]+ with Unicode's word characters.
PatternMatch ScanWordsAndSymbols(absl::string_view subject, size_t from);

struct ScannedPattern {
  absl::string_view pattern;
  SplitScanner scanner = nullptr;
};

// All patterns that have a scanner.
[[nodiscard]] std::span<const ScannedPattern> ScannedPatterns();
// The scanner of the pattern written exactly `pattern`; nullptr when there is none.
[[nodiscard]] SplitScanner FindScanner(absl::string_view pattern);

}  // namespace tessera::server
