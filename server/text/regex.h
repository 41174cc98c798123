// PCRE2 patterns for tokenizers: UTF-8 with Unicode properties, compiled once, with bounded work.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/split_scanner.h"

namespace tessera::server {

// Whether a pattern that has a scanner is searched by it, or by the library like any other.
enum class PatternEngine { kScanner, kLibrary };

// An immutable compiled pattern; any number of threads may search with it at once.
class Regex {
 public:
  using Match = PatternMatch;

  // `^` and `$` match at every line. INVALID_ARGUMENT with the offset and the reason when the
  // pattern is longer than 16 KiB or does not compile.
  static StatusOr<Regex> Compile(absl::string_view pattern,
                                 PatternEngine engine = PatternEngine::kScanner);
  // A pattern that matches `text` (not empty) literally.
  static StatusOr<Regex> CompileLiteral(absl::string_view text);

  static Regex FromScanner(SplitScanner scanner);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // The first match at or after `from` in `subject`, which must be valid UTF-8.
  // RESOURCE_EXHAUSTED when the match limit is reached.
  [[nodiscard]] StatusOr<Match> Find(absl::string_view subject, size_t from) const;
  [[nodiscard]] const std::string& pattern() const { return pattern_; }

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code, std::string pattern);

  std::unique_ptr<Code> code_;
  SplitScanner scanner_ = nullptr;
  std::string pattern_;
};

}  // namespace tessera::server
