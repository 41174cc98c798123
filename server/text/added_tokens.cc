#include "server/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "server/text/unicode_classes.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

size_t CharacterBefore(absl::string_view text, size_t pos) {
  do {
    --pos;
  } while (pos > 0 && (static_cast<uint8_t>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

bool HasClass(absl::string_view text, size_t pos, uint32_t classes) {
  return (ClassesOf(DecodeUtf8(text, pos).value) & classes) != 0;
}

bool StandsAlone(absl::string_view text, size_t begin, size_t end) {
  if (begin > 0 && HasClass(text, CharacterBefore(text, begin), kWordPart)) return false;
  return end >= text.size() || !HasClass(text, end, kWordPart);
}

bool Inside(ByteRange outer, size_t begin, size_t end) {
  return begin >= outer.begin && end <= outer.end;
}

bool Overlap(ByteRange range, size_t begin, size_t end) {
  return begin < range.end && range.begin < end;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (uint32_t i = static_cast<uint32_t>(tokens_.size()); i-- > 0;) {
    if (tokens_[i].text.empty()) continue;
    trie_.Insert(tokens_[i].text, i);
    has_special_ = has_special_ || tokens_[i].special;
  }
}

std::optional<TokenId> AddedTokens::Find(absl::string_view text) const {
  const uint32_t node = trie_.Walk(text);
  if (node == ByteTrie::kNone || trie_.value(node) == ByteTrie::kNone) return std::nullopt;
  return tokens_[trie_.value(node)].id;
}

std::vector<Fragment> AddedTokens::Split(absl::string_view text,
                                         const std::vector<ByteRange>& special_ranges) const {
  std::vector<Fragment> fragments;
  size_t done = 0;
  size_t range = 0;
  const auto add_text = [&](size_t end) {
    if (end > done) {
      fragments.push_back({{static_cast<uint32_t>(done), static_cast<uint32_t>(end)}, {}});
    }
  };
  for (size_t pos = 0; pos < text.size() && !tokens_.empty();) {
    const uint32_t index = trie_.Longest(text.substr(pos)).value;
    if (index == ByteTrie::kNone) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = pos;
    size_t end = pos + token.text.size();
    while (range < special_ranges.size() && special_ranges[range].end <= pos) ++range;
    const ByteRange allowed = range < special_ranges.size() ? special_ranges[range] : ByteRange{};
    if (token.special && !Inside(allowed, begin, end)) {
      pos = Overlap(allowed, begin, end) ? pos + 1 : end;
      continue;
    }
    pos = end;
    if (token.single_word && !StandsAlone(text, begin, end)) continue;
    while (token.lstrip && begin > done &&
           HasClass(text, CharacterBefore(text, begin), kWhiteSpace)) {
      begin = CharacterBefore(text, begin);
    }
    while (token.rstrip && end < text.size() && HasClass(text, end, kWhiteSpace)) {
      end += DecodeUtf8(text, end).length;
    }
    // White space that the token before it swallowed may be a token itself: the text goes on behind
    // that one, and what is left of the white space is text again. One that swallows what is before
    // it has nothing left there.
    if (token.lstrip) begin = std::max(begin, done);
    if (begin >= end) continue;
    add_text(begin);
    fragments.push_back({{static_cast<uint32_t>(begin), static_cast<uint32_t>(end)}, token.id});
    done = end;
  }
  add_text(text.size());
  return fragments;
}

}  // namespace tessera::server
