#include "kernels/processors.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace tessera::kernels {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::optional<int> Processors(absl::string_view quota_text, absl::string_view period_text) {
  int64_t quota = 0;
  int64_t period = 0;
  if (!absl::SimpleAtoi(quota_text, &quota) || !absl::SimpleAtoi(period_text, &period)) {
    return std::nullopt;
  }
  if (quota <= 0 || period <= 0) return std::nullopt;
  const int64_t whole = quota / period + (quota % period != 0 ? 1 : 0);
  return static_cast<int>(std::clamp<int64_t>(whole, 1, 1 << 20));
}

std::optional<int> LimitOf(const std::string& group) {
  const std::vector<std::string> words =
      absl::StrSplit(ReadText(group + "/cpu.max"), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  if (words.size() >= 2) return Processors(words[0], words[1]);
  return Processors(ReadText(group + "/cpu.cfs_quota_us"), ReadText(group + "/cpu.cfs_period_us"));
}

}  // namespace

std::optional<int> CgroupProcessors(absl::string_view cgroup_file, absl::string_view root) {
  std::optional<int> limit;
  for (absl::string_view line : absl::StrSplit(cgroup_file, '\n')) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const bool unified = parts[0] == "0" && parts[1].empty();
    const std::vector<absl::string_view> controllers = absl::StrSplit(parts[1], ',');
    const bool cpu = std::find(controllers.begin(), controllers.end(), "cpu") != controllers.end();
    if (!unified && !cpu) continue;
    const std::string base = unified ? std::string(root) : absl::StrCat(root, "/", parts[1]);
    std::string path(parts[2]);
    while (true) {
      const std::optional<int> here = LimitOf(absl::StrCat(base, path == "/" ? "" : path));
      if (here.has_value()) limit = std::min(limit.value_or(*here), *here);
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos || path == "/") break;
      path = slash == 0 ? "/" : path.substr(0, slash);
    }
  }
  return limit;
}

}  // namespace tessera::kernels
