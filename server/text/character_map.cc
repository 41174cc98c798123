#include "server/text/character_map.h"

#include <unicode/brkiter.h>
#include <unicode/utext.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

// The bits of a unit of the double array.
constexpr uint32_t kLeafFlag = 1u << 31;
constexpr uint32_t kHasLeaf = 1u << 8;
constexpr uint32_t kLabelMask = kLeafFlag | 0xFF;
constexpr uint32_t kValueMask = kLeafFlag - 1;

uint32_t OffsetOf(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

Status MapError(absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {"character map is not usable", "", std::string(why), "fetch the file again"});
}

class MapStep : public NormalizerStep {
 public:
  explicit MapStep(CharacterMap map) : map_(std::move(map)) {}

  Status Apply(FragmentPlace place, AlignedText* text) const override {
    UErrorCode code = U_ZERO_ERROR;
    const std::unique_ptr<icu::BreakIterator> clusters(
        icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), code));
    UText source = UTEXT_INITIALIZER;
    utext_openUTF8(&source, text->text.data(), static_cast<int64_t>(text->text.size()), &code);
    if (U_SUCCESS(code)) clusters->setText(&source, code);
    if (U_FAILURE(code)) {
      return Error(absl::StatusCode::kInternal,
                   {"grapheme clusters cannot be found", "", u_errorName(code), ""});
    }
    const absl::string_view view = text->text;
    Rewriting rewriting(*text);
    Status status;
    for (int32_t begin = clusters->first(), end = clusters->next();
         status.ok() && end != icu::BreakIterator::DONE; begin = end, end = clusters->next()) {
      status = Cluster(view.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                       &rewriting);
    }
    utext_close(&source);
    TESSERA_RETURN_IF_ERROR(status);
    *text = std::move(rewriting.editor).Finish();
    return absl::OkStatus();
  }

 private:
  static constexpr size_t kLongestCluster = 5;  // bytes of a cluster that is looked up as a whole

  struct Rewriting {
    explicit Rewriting(const AlignedText& text) : editor(text) {}
    TextEditor editor;
    size_t written = 0;
    [[nodiscard]] Status Replace(size_t bytes, absl::string_view replacement) {
      written += replacement.size();
      TESSERA_RETURN_IF_ERROR(CheckNormalizedBytes(written));
      editor.Replace(bytes, replacement);
      return absl::OkStatus();
    }
  };

  Status Cluster(absl::string_view cluster, Rewriting* rewriting) const {
    if (cluster.size() <= kLongestCluster) {
      if (const auto match = map_.Shortest(cluster)) {
        return rewriting->Replace(cluster.size(), match->replacement);
      }
    }
    for (size_t pos = 0; pos < cluster.size();) {
      const uint32_t length = DecodeUtf8(cluster, pos).length;
      if (const auto match = map_.Shortest(cluster.substr(pos, length))) {
        TESSERA_RETURN_IF_ERROR(rewriting->Replace(length, match->replacement));
      } else {
        rewriting->editor.Keep(length);
      }
      pos += length;
    }
    return absl::OkStatus();
  }

  CharacterMap map_;
};

}  // namespace

StatusOr<CharacterMap> CharacterMap::Parse(absl::string_view bytes) {
  uint32_t trie_bytes = 0;
  if (bytes.size() < sizeof(trie_bytes)) return MapError("it has no header");
  std::memcpy(&trie_bytes, bytes.data(), sizeof(trie_bytes));
  bytes.remove_prefix(sizeof(trie_bytes));
  if (trie_bytes > bytes.size() || trie_bytes % sizeof(uint32_t) != 0 || trie_bytes == 0) {
    return MapError(absl::StrCat("a trie of ", trie_bytes, " bytes does not fit"));
  }
  CharacterMap map;
  map.units_.resize(trie_bytes / sizeof(uint32_t));
  std::memcpy(map.units_.data(), bytes.data(), trie_bytes);
  map.replacements_ = std::string(bytes.substr(trie_bytes));
  if (FindInvalidUtf8(map.replacements_).has_value()) {
    return MapError("its replacements are not UTF-8");
  }
  return map;
}

absl::string_view CharacterMap::ReplacementAt(uint32_t offset) const {
  const absl::string_view all = replacements_;
  if (offset >= all.size()) return {};
  const absl::string_view rest = all.substr(offset);
  // An offset into the middle of a character would write half of it.
  if ((static_cast<uint8_t>(rest[0]) & 0xC0) == 0x80) return {};
  return rest.substr(0, rest.find('\0'));
}

std::optional<CharacterMap::Match> CharacterMap::Search(absl::string_view text, Stop stop) const {
  std::optional<Match> best;
  size_t node = OffsetOf(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (byte == 0 || node >= units_.size()) break;
    const uint32_t unit = units_[node];
    if ((unit & kLabelMask) != byte) break;
    node ^= OffsetOf(unit);
    if ((unit & kHasLeaf) == 0) continue;
    // A match must not end inside a character, whatever the file says.
    const bool whole = i + 1 == text.size() || (static_cast<uint8_t>(text[i + 1]) & 0xC0) != 0x80;
    if (node >= units_.size() || !whole) break;
    best = Match{i + 1, ReplacementAt(units_[node] & kValueMask)};
    if (stop == Stop::kAtFirst) break;
  }
  return best;
}

std::optional<CharacterMap::Match> CharacterMap::Longest(absl::string_view text) const {
  return Search(text, Stop::kAtLast);
}

std::optional<CharacterMap::Match> CharacterMap::Shortest(absl::string_view text) const {
  return Search(text, Stop::kAtFirst);
}

std::unique_ptr<NormalizerStep> MakeCharacterMapStep(CharacterMap map) {
  return std::make_unique<MapStep>(std::move(map));
}

}  // namespace tessera::server
