#include "kernels/processors.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <thread>
#include <utility>

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

// The number in a file; nullopt when there is none.
std::optional<int> NumberIn(const std::string& path) {
  int number = 0;
  if (!absl::SimpleAtoi(ReadText(path), &number) || number < 0) return std::nullopt;
  return number;
}

constexpr int kMaxProcessor = 65535;

}  // namespace

std::vector<int> ParseProcessorList(absl::string_view text) {
  std::set<int> numbers;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::vector<absl::string_view> ends = absl::StrSplit(part, absl::MaxSplits('-', 1));
    int first = 0;
    if (!absl::SimpleAtoi(ends.front(), &first) || first < 0 || first > kMaxProcessor) continue;
    int last = first;
    if (ends.size() == 2 && (!absl::SimpleAtoi(ends[1], &last) || last > kMaxProcessor)) continue;
    for (int number = first; number <= last; ++number) numbers.insert(number);
  }
  return {numbers.begin(), numbers.end()};
}

std::vector<Processor> ReadTopology(absl::string_view root, std::vector<int> ids) {
  std::sort(ids.begin(), ids.end());
  std::vector<Processor> processors;
  for (const int id : ids) {
    const std::string folder = absl::StrCat(root, "/cpu/cpu", id, "/topology");
    const std::optional<int> core = NumberIn(folder + "/core_id");
    Processor processor{.id = id};
    processor.package = NumberIn(folder + "/physical_package_id").value_or(0);
    // Beside cores that can be read it is none of them.
    processor.core = core.value_or(kMaxProcessor + 1 + id);
    processors.push_back(processor);
  }
  for (const int node : ParseProcessorList(ReadText(absl::StrCat(root, "/node/online")))) {
    const std::vector<int> members =
        ParseProcessorList(ReadText(absl::StrCat(root, "/node/node", node, "/cpulist")));
    for (Processor& processor : processors) {
      if (std::binary_search(members.begin(), members.end(), processor.id)) processor.node = node;
    }
  }
  return processors;
}

int CountCores(const std::vector<Processor>& processors) {
  std::set<std::pair<int, int>> cores;
  for (const Processor& processor : processors) cores.emplace(processor.package, processor.core);
  return static_cast<int>(cores.size());
}

int CountNodes(const std::vector<Processor>& processors) {
  std::set<int> nodes;
  for (const Processor& processor : processors) nodes.insert(processor.node);
  return static_cast<int>(nodes.size());
}

std::vector<Processor> AllowedProcessors() {
  std::vector<int> ids;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int id = 0; id < CPU_SETSIZE; ++id) {
      if (CPU_ISSET(id, &set)) ids.push_back(id);
    }
  }
  // More processors than the set has room for, or none that may be asked.
  const int all =
      ids.empty() ? static_cast<int>(std::max(1u, std::thread::hardware_concurrency())) : 0;
  for (int id = 0; id < all; ++id) ids.push_back(id);
  return ReadTopology("/sys/devices/system", std::move(ids));
}

std::optional<int> ProcessorQuota() {
  return CgroupProcessors(ReadText("/proc/self/cgroup"), "/sys/fs/cgroup");
}

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
