// What on this machine would keep a daemon from serving well, as findings.
#pragma once

#include <string>
#include <vector>

#include "config/settings.h"

namespace tessera::server::cli {

enum class Verdict : uint8_t { kGood, kWarning, kFailure };

struct Finding {
  Verdict verdict = Verdict::kGood;
  std::string check;  // "zoo", "ports", …: one word
  std::string what;
  std::string fix;  // what to do; empty for kGood
};

// The zoo: there, readable, its chains sound in form, writable, not locked; disk and memory for it.
[[nodiscard]] std::vector<Finding> CheckZoo(const Settings& settings);
// Processor, cores, control group, and what the threads can read and compute at most.
[[nodiscard]] std::vector<Finding> CheckProcessor(const Settings& settings);
// Open files, mappings, clock.
[[nodiscard]] std::vector<Finding> CheckLimits(const Settings& settings);
// Whether every address can be listened on.
[[nodiscard]] std::vector<Finding> CheckAddresses(const Settings& settings);

}  // namespace tessera::server::cli
