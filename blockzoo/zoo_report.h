// The zoo's reports as text for a terminal or a log: aligned tables, sizes for people.
#pragma once

#include <string>

#include "blockzoo/zoo_reports.h"

namespace tessera::blockzoo {

[[nodiscard]] std::string Render(const ImportReport& report);
[[nodiscard]] std::string Render(const ExportReport& report);
[[nodiscard]] std::string Render(const SynthReport& report);
[[nodiscard]] std::string Render(const QuantizeReport& report);
[[nodiscard]] std::string Render(const ZooListing& listing);
[[nodiscard]] std::string Render(const ChainDetails& details);
[[nodiscard]] std::string Render(const ChainDiff& diff);
[[nodiscard]] std::string Render(const VerifyReport& report);
// Says "would remove" for a dry run.
enum class GcTense : uint8_t { kDone, kPlanned };
[[nodiscard]] std::string Render(const GcReport& report, GcTense tense);

// "135M", "1.24B".
[[nodiscard]] std::string CountText(uint64_t count);

}  // namespace tessera::blockzoo
