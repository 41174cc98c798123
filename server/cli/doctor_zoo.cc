// Checks of the zoo, and of the disk and memory that it needs.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "blockzoo/zoo.h"
#include "server/cli/console.h"
#include "server/cli/doctor_checks.h"
#include "server/core/memory_plan.h"

namespace tessera::server::cli {
namespace {

using blockzoo::Zoo;

Finding Good(absl::string_view check, absl::string_view what) {
  return {Verdict::kGood, std::string(check), std::string(what), ""};
}

Finding FromStatus(Verdict verdict, absl::string_view check, const Status& status,
                   absl::string_view fix) {
  const ErrorParts parts = PartsOf(status);
  std::string what = parts.what;
  if (!parts.why.empty()) absl::StrAppend(&what, ": ", parts.why);
  return {verdict, std::string(check), what, parts.fix.empty() ? std::string(fix) : parts.fix};
}

Finding CheckDisk(const Settings& settings) {
  std::error_code code;
  const std::filesystem::space_info space = std::filesystem::space(settings.store.root, code);
  if (code) {
    return {Verdict::kWarning, "disk", absl::StrCat("its free space is unknown: ", code.message()),
            "check the file system of store.root"};
  }
  const std::string free = HumanBytes(space.available);
  const auto reserve = static_cast<uint64_t>(settings.store.reserve.bytes);
  if (space.available <= reserve) {
    return {Verdict::kWarning, "disk",
            absl::StrCat(free, " is free, store.reserve keeps ", HumanBytes(reserve),
                         ": nothing can be imported, and no repacked weights are kept"),
            "free some space (tessera zoo gc), or lower store.reserve"};
  }
  return Good("disk", absl::StrCat(free, " is free, of which ", HumanBytes(reserve), " stays so"));
}

Finding CheckWriting(const Settings& settings) {
  const blockzoo::ZooLayout layout(settings.store.root);
  if (access(settings.store.root.c_str(), W_OK) != 0) {
    return {Verdict::kWarning, "zoo",
            "it may not be written: it serves, but repacked weights are made anew at each start",
            absl::StrCat("give the daemon's user the folder ", settings.store.root)};
  }
  std::error_code code;
  if (!std::filesystem::exists(layout.WriterLock(), code)) return Good("zoo", "it may be written");
  const StatusOr<blockzoo::FileLock> lock = blockzoo::FileLock::Take(
      layout.WriterLock(), blockzoo::LockKind::kShared, "doctor", std::chrono::milliseconds(0));
  if (!lock.ok()) {
    return FromStatus(Verdict::kWarning, "zoo", lock.status(),
                      "wait for it; the lock ends with its process");
  }
  return Good("zoo", "it may be written, and nobody else writes");
}

Finding CheckMemory(const Settings& settings, const blockzoo::ZooListing& listing) {
  const MemoryPlan plan = PlanMemory(settings.engine, FreeMemoryBytes());
  uint64_t largest = 0;
  std::string name;
  for (const blockzoo::ChainSummary& chain : listing.chains) {
    if (chain.weight_bytes <= largest) continue;
    largest = chain.weight_bytes;
    name = chain.name;
  }
  const std::string room = absl::StrCat(HumanBytes(plan.weight_bytes), " is for weights");
  if (plan.cache_bytes > plan.free_bytes) {
    return {Verdict::kFailure, "memory",
            absl::StrCat("engine.memory is ", HumanBytes(plan.cache_bytes), ", only ",
                         HumanBytes(plan.free_bytes), " is free"),
            "lower engine.memory, or set it to auto"};
  }
  if (largest > plan.weight_bytes) {
    return {Verdict::kFailure, "memory",
            absl::StrCat("chain \"", name, "\" takes ", HumanBytes(largest), ", ", room),
            "free memory, or raise engine.memory_fraction"};
  }
  if (listing.distinct_bytes > plan.weight_bytes) {
    return {
        Verdict::kWarning, "memory",
        absl::StrCat("all chains together take ", HumanBytes(listing.distinct_bytes), ", ", room),
        "unload models that are not used, or raise engine.memory_fraction"};
  }
  return Good(
      "memory",
      absl::StrCat(HumanBytes(plan.free_bytes), " is free: up to ", HumanBytes(plan.cache_bytes),
                   " for the cache, ", HumanBytes(plan.weight_bytes),
                   " for weights (all chains together: ", HumanBytes(listing.distinct_bytes), ")"));
}

// Every tensor of a loaded chain is a mapping of its own.
Finding CheckMappings(const Zoo& zoo, const blockzoo::ZooListing& listing) {
  uint64_t allowed = 0;
  std::string text;
  std::ifstream("/proc/sys/vm/max_map_count") >> text;
  if (!absl::SimpleAtoi(text, &allowed)) return Good("mappings", "their number has no bound");
  uint64_t tensors = 0;
  for (const blockzoo::ChainSummary& chain : listing.chains) {
    const StatusOr<blockzoo::ChainDetails> details = zoo.Show(chain.name);
    if (!details.ok()) continue;
    for (const blockzoo::BlockDetails& block : details->blocks) {
      tensors += block.manifest.tensors.size();
    }
  }
  if (tensors > allowed / 2) {
    return {Verdict::kWarning, "mappings",
            absl::StrCat("the chains have ", tensors, " tensors; a process may map ", allowed),
            absl::StrCat("sysctl -w vm.max_map_count=", 4 * tensors)};
  }
  return Good("mappings", absl::StrCat(tensors, " tensors of ", allowed, " mappings allowed"));
}

}  // namespace

std::vector<Finding> CheckZoo(const Settings& settings) {
  blockzoo::ZooOptions options;
  options.directory = settings.store.root;
  options.mode = blockzoo::ZooMode::kReadOnly;
  const StatusOr<std::unique_ptr<Zoo>> zoo = Zoo::Open(options);
  const std::string make =
      absl::StrCat("tessera zoo --zoo ", settings.store.root, " import PATH --name NAME");
  if (!zoo.ok()) return {FromStatus(Verdict::kFailure, "zoo", zoo.status(), make)};
  const StatusOr<blockzoo::ZooListing> listing = (*zoo)->List();
  if (!listing.ok()) {
    return {FromStatus(Verdict::kFailure, "zoo", listing.status(), "check who may read it")};
  }
  std::vector<Finding> findings;
  for (const blockzoo::ChainSummary& chain : listing->chains) {
    if (chain.problem.empty()) continue;
    findings.push_back({Verdict::kFailure, "zoo",
                        absl::StrCat("chain \"", chain.name, "\" is damaged: ", chain.problem),
                        "import it again; tessera zoo verify finds all damage"});
  }
  if (listing->chains.empty()) {
    findings.push_back(
        {Verdict::kWarning, "zoo", absl::StrCat(settings.store.root, " has no chains"), make});
  } else if (findings.empty()) {
    findings.push_back(
        Good("zoo", absl::StrCat(settings.store.root, " has ", listing->chains.size(), " chains")));
  }
  for (const ModelSettings& model : settings.models) {
    const bool known =
        std::any_of(listing->chains.begin(), listing->chains.end(),
                    [&](const auto& chain) { return chain.name == model.ChainName(); });
    if (known) continue;
    findings.push_back({Verdict::kWarning, "zoo",
                        absl::StrCat("model \"", model.name, "\" names the chain \"",
                                     model.ChainName(), "\", which is not there"),
                        "import it under that name, or correct models[].chain"});
  }
  findings.push_back(CheckWriting(settings));
  findings.push_back(CheckDisk(settings));
  findings.push_back(CheckMemory(settings, *listing));
  findings.push_back(CheckMappings(**zoo, *listing));
  return findings;
}

}  // namespace tessera::server::cli
