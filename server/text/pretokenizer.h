// Cutting a normalized text into the pieces within which tokens are merged.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/aligned_text.h"
#include "server/text/normalizer.h"
#include "server/text/regex.h"

namespace tessera::server {

// A text and the ranges of it that are pieces, in order; bytes outside every range are dropped.
struct Pieces {
  AlignedText text;
  std::vector<ByteRange> ranges;
};

// One pre-tokenization step; immutable, thread-safe.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  virtual Status Apply(FragmentPlace place, Pieces* pieces) const = 0;
};

using PreTokenizerSteps = std::vector<std::unique_ptr<PreTokenizerStep>>;

// What becomes of the matches of a splitting pattern (the names of tokenizer.json).
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
enum class SplitMatches { kPattern, kInverted };
enum class PrependScheme { kAlways, kFirst, kNever };

std::unique_ptr<PreTokenizerStep> MakeSplitStep(Regex pattern, SplitBehavior behavior,
                                                SplitMatches matches);
// Puts a space before each piece that does not begin with one.
std::unique_ptr<PreTokenizerStep> MakePrefixSpaceStep();
// Writes each byte as its symbol of the byte-level alphabet, and back.
std::unique_ptr<PreTokenizerStep> MakeBytesToSymbolsStep();
std::unique_ptr<PreTokenizerStep> MakeSymbolsToBytesStep();
// Replaces spaces by `replacement` and puts it before pieces as `scheme` says.
std::unique_ptr<PreTokenizerStep> MakeMetaspaceStep(std::string replacement, PrependScheme scheme);

// Runs the steps over the whole of `text` as one piece.
StatusOr<Pieces> PreTokenize(const PreTokenizerSteps& steps, FragmentPlace place, AlignedText text);

}  // namespace tessera::server
