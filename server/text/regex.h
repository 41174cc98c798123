// PCRE2 patterns for tokenizers: UTF-8 with Unicode properties, compiled once, with bounded work.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::server {

// An immutable compiled pattern; any number of threads may search with it at once.
class Regex {
 public:
  struct Match {
    bool found = false;
    size_t begin = 0;
    size_t end = 0;
  };

  // INVALID_ARGUMENT with the offset and the reason when the pattern is longer than 16 KiB or does
  // not compile.
  static StatusOr<Regex> Compile(absl::string_view pattern);
  // A pattern that matches `text` literally.
  static StatusOr<Regex> CompileLiteral(absl::string_view text);

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
  std::string pattern_;
};

}  // namespace tessera::server
