#include "config/problem.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

auto Key(const Problem& problem) {
  return std::tie(problem.file, problem.position, problem.field, problem.message);
}

}  // namespace

std::string Problem::Text() const {
  std::string text = file;
  if (position.line > 0) absl::StrAppend(&text, ":", position.line, ":", position.column);
  if (!text.empty()) text += ": ";
  if (!field.empty()) absl::StrAppend(&text, field, ": ");
  text += message;
  if (!hint.empty()) absl::StrAppend(&text, " (", hint, ")");
  return text;
}

void SortProblems(std::vector<Problem>* problems) {
  std::stable_sort(problems->begin(), problems->end(),
                   [](const Problem& a, const Problem& b) { return Key(a) < Key(b); });
  const auto same = [](const Problem& a, const Problem& b) { return Key(a) == Key(b); };
  problems->erase(std::unique(problems->begin(), problems->end(), same), problems->end());
}

std::string ProblemsText(const std::vector<Problem>& problems) {
  std::string text;
  for (const Problem& problem : problems) absl::StrAppend(&text, problem.Text(), "\n");
  return text;
}

Status ProblemsStatus(absl::string_view what, const std::vector<Problem>& problems) {
  if (problems.empty()) return absl::OkStatus();
  std::string why = ProblemsText(problems);
  why.pop_back();
  const Problem& first = problems.front();
  std::string where = first.file;
  if (first.position.line > 0) absl::StrAppend(&where, ":", first.position.line);
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat(what, ": ", problems.size(),
                                     problems.size() == 1 ? " problem" : " problems"),
                .where = where,
                .why = why,
                .fix = first.hint});
}

}  // namespace tessera
