#include "server/text/sentencepiece_normalizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "server/text/byte_trie.h"
#include "server/text/merge.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

class SentencePieceStep : public NormalizerStep {
 public:
  explicit SentencePieceStep(SentencePieceRules rules) : rules_(std::move(rules)) {
    for (uint32_t i = 0; i < rules_.symbols.size(); ++i) symbols_.Insert(rules_.symbols[i], i);
  }

  Status Apply(FragmentPlace place, AlignedText* text) const override {
    const absl::string_view view = text->text;
    TextEditor editor(*text);
    size_t pos = 0;
    while (rules_.remove_extra_whitespaces && pos < view.size()) {
      const CharacterMap::Match part = PartAt(view, pos);
      if (part.replacement != " ") break;
      editor.Replace(part.length, "");
      pos += part.length;
    }
    if (pos < view.size() && rules_.add_dummy_prefix) editor.Replace(0, kSpaceMark);
    bool after_space = rules_.remove_extra_whitespaces;
    size_t written = 0;
    while (pos < view.size()) {
      const CharacterMap::Match part = PartAt(view, pos);
      const std::string marked = Marked(part.replacement, after_space);
      written += marked.size();
      TESSERA_RETURN_IF_ERROR(CheckNormalizedBytes(written));
      if (marked == view.substr(pos, part.length)) {
        editor.Keep(part.length);
      } else {
        editor.Replace(part.length, marked);
      }
      if (rules_.remove_extra_whitespaces && !marked.empty()) {
        after_space = part.replacement.back() == ' ';
      }
      pos += part.length;
    }
    AlignedText rewritten = std::move(editor).Finish();
    if (rules_.remove_extra_whitespaces) DropMarksAtEnd(&rewritten);
    *text = std::move(rewritten);
    return absl::OkStatus();
  }

 private:
  // What stands at `pos`, and what is written for it: a symbol, a text of the map, a character.
  [[nodiscard]] CharacterMap::Match PartAt(absl::string_view text, size_t pos) const {
    const absl::string_view rest = text.substr(pos);
    if (const size_t length = symbols_.Longest(rest).length; length > 0) {
      return {length, rest.substr(0, length)};
    }
    if (rules_.map.has_value()) {
      if (const auto match = rules_.map->Longest(rest)) return *match;
    }
    const size_t length = DecodeUtf8(text, pos).length;
    return {length, rest.substr(0, length)};
  }

  // `part` with marks for its spaces; without those in front where the text has one already.
  static std::string Marked(absl::string_view part, bool after_space) {
    std::string marked;
    marked.reserve(part.size() + kSpaceMark.size());
    size_t i = after_space ? std::min(part.find_first_not_of(' '), part.size()) : 0;
    for (; i < part.size(); ++i) {
      if (part[i] == ' ') {
        marked.append(kSpaceMark.data(), kSpaceMark.size());
      } else {
        marked += part[i];
      }
    }
    return marked;
  }

  static void DropMarksAtEnd(AlignedText* text) {
    size_t size = text->text.size();
    const absl::string_view all = text->text;
    while (absl::EndsWith(all.substr(0, size), kSpaceMark)) size -= kSpaceMark.size();
    text->text.resize(size);
    if (text->tracked()) text->source.resize(size);
  }

  SentencePieceRules rules_;
  ByteTrie symbols_;
};

}  // namespace

std::unique_ptr<NormalizerStep> MakeSentencePieceStep(SentencePieceRules rules) {
  return std::make_unique<SentencePieceStep>(std::move(rules));
}

}  // namespace tessera::server
