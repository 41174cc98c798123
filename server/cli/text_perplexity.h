// The perplexity of a text file, measured in this process or by a daemon.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "blockzoo/zoo.h"
#include "config/settings.h"
#include "server/cli/client.h"
#include "server/core/perplexity.h"

namespace tessera::server::cli {

struct TextPerplexity {
  std::string file;  // at most kMaxEncodeBytes of it are read: a longer one is cut at a line's end
  uint64_t max_tokens = 0;  // from the text's start; 0: all
  uint32_t context = 512;
};

// What a change of weights costs.
struct PerplexityCost {
  uint32_t context = 0;
  Perplexity source;
  Perplexity made;
};
// A line for people.
[[nodiscard]] std::string Render(const PerplexityCost& cost);

// Both: NOT_FOUND for a file that cannot be read, INVALID_ARGUMENT for an empty one.
//
// Of a chain of the zoo, in an engine of its own. Shows progress on stderr.
[[nodiscard]] StatusOr<Perplexity> MeasureInZoo(const std::shared_ptr<const Settings>& settings,
                                                blockzoo::Zoo* zoo, const std::string& chain,
                                                const TextPerplexity& text);
// Of a model that a daemon serves.
[[nodiscard]] StatusOr<Perplexity> MeasureByDaemon(Client& client, const std::string& model,
                                                   const TextPerplexity& text);

}  // namespace tessera::server::cli
