// Text normalization before tokens are looked for: an ordered list of steps.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/aligned_text.h"
#include "server/text/regex.h"

namespace tessera::server {

// The longest text that one call encodes, and the longest that its normalization may become.
inline constexpr size_t kMaxEncodeBytes = size_t{8} << 20;
inline constexpr size_t kMaxNormalizedBytes = size_t{32} << 20;

// Where a fragment between two added tokens stands in the whole text.
enum class FragmentPlace { kFirst, kLater };

// One normalization step; immutable, thread-safe.
class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  // Rewrites `text` (valid UTF-8 before and after). RESOURCE_EXHAUSTED when it grows past
  // kMaxNormalizedBytes.
  virtual Status Apply(FragmentPlace place, AlignedText* text) const = 0;
};

using NormalizerSteps = std::vector<std::unique_ptr<NormalizerStep>>;

// The version whose characters are normalized; those that came later stay as they are.
enum class UnicodeVersion { kNewest, k9 };
enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };
enum class PrependTo { kEveryFragment, kFirstFragment };
enum class StripSides { kLeft, kRight, kBoth };

struct BertNormalizerOptions {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
};

std::unique_ptr<NormalizerStep> MakeUnicodeStep(UnicodeForm form, UnicodeVersion version);
// Puts `prefix` before each non-empty fragment, or before the first only.
std::unique_ptr<NormalizerStep> MakePrependStep(std::string prefix, PrependTo to);
// Replaces each match of `pattern` by `content` (literally).
std::unique_ptr<NormalizerStep> MakeReplaceStep(Regex pattern, std::string content);
std::unique_ptr<NormalizerStep> MakeLowercaseStep();
// Removes white space at the given sides.
std::unique_ptr<NormalizerStep> MakeStripStep(StripSides sides);
// Removes characters that have any of `classes` (CharClass).
std::unique_ptr<NormalizerStep> MakeRemoveStep(uint32_t classes);
// Drops control characters and makes other kinds of white space spaces, as `tokenizers`' Nmt does.
std::unique_ptr<NormalizerStep> MakeNmtStep();
// Writes each byte as its symbol of the byte-level alphabet.
std::unique_ptr<NormalizerStep> MakeByteSymbolsStep();
// BERT's cleaning: drops control characters, isolates CJK ideographs, strips accents (NFD without
// Mn), lower-cases.
std::unique_ptr<NormalizerStep> MakeBertStep(const BertNormalizerOptions& options);

// RESOURCE_EXHAUSTED when a normalized text of `bytes` bytes is longer than kMaxNormalizedBytes.
Status CheckNormalizedBytes(size_t bytes);

// Runs the steps in order.
Status Normalize(const NormalizerSteps& steps, FragmentPlace place, AlignedText* text);

}  // namespace tessera::server
