// What is wrong with settings: problems are gathered, not returned one by one, so that one run of
// `check-config` shows all of them.
#pragma once

#include <compare>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera {

// A place in a text, both from 1; columns count characters. 0 means unknown.
struct Position {
  int line = 0;
  int column = 0;
  auto operator<=>(const Position&) const = default;
};

struct Problem {
  std::string file;  // the file's name, or `env NAME`, or `flag KEY`
  Position position;
  std::string field;    // `models[0].name`; empty where no field is concerned
  std::string message;  // what is wrong
  std::string hint;     // what to do; may be empty

  // "file:line:column: field: message (hint)", parts that are empty left out.
  [[nodiscard]] std::string Text() const;
};

// At most this many problems are gathered from one source; the rest would say nothing new.
inline constexpr size_t kMaxProblems = 100;

// Sorts by place and takes out repetitions.
void SortProblems(std::vector<Problem>* problems);

// One problem a line.
[[nodiscard]] std::string ProblemsText(const std::vector<Problem>& problems);

// OK if there is none, otherwise INVALID_ARGUMENT with all of them.
[[nodiscard]] Status ProblemsStatus(absl::string_view what, const std::vector<Problem>& problems);

}  // namespace tessera
