// The zoo's reports as JSON, for programs: one object and a line end. Sizes are in bytes, digests
// in hexadecimal.
#pragma once

#include <optional>
#include <string>

#include "blockzoo/zoo_reports.h"
#include "server/cli/text_perplexity.h"

namespace tessera::server::cli {

[[nodiscard]] std::string ToJson(const blockzoo::ImportReport& report);
[[nodiscard]] std::string ToJson(const blockzoo::ExportReport& report);
[[nodiscard]] std::string ToJson(const blockzoo::SynthReport& report);
[[nodiscard]] std::string ToJson(const blockzoo::QuantizeReport& report,
                                 const std::optional<PerplexityCost>& cost);
[[nodiscard]] std::string ToJson(const blockzoo::ZooListing& listing);
[[nodiscard]] std::string ToJson(const blockzoo::ChainDetails& details);
[[nodiscard]] std::string ToJson(const blockzoo::ChainDiff& diff);
[[nodiscard]] std::string ToJson(const blockzoo::VerifyReport& report);
[[nodiscard]] std::string ToJson(const blockzoo::GcReport& report);
[[nodiscard]] std::string ToJson(const blockzoo::ChainManifest& chain);

}  // namespace tessera::server::cli
