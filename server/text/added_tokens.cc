#include "server/text/added_tokens.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <utility>

#include "server/text/utf8.h"

namespace tessera::server {
namespace {

uint64_t Edge(uint32_t node, char byte) { return uint64_t{node} << 8 | static_cast<uint8_t>(byte); }

size_t CharacterBefore(absl::string_view text, size_t pos) {
  do {
    --pos;
  } while (pos > 0 && (static_cast<uint8_t>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

bool IsWordCharacter(char32_t code) { return code == '_' || u_isalnum(static_cast<UChar32>(code)); }

bool IsSpaceAt(absl::string_view text, size_t pos) {
  return u_isUWhiteSpace(static_cast<UChar32>(DecodeUtf8(text, pos).value));
}

bool StandsAlone(absl::string_view text, size_t begin, size_t end) {
  if (begin > 0 && IsWordCharacter(DecodeUtf8(text, CharacterBefore(text, begin)).value)) {
    return false;
  }
  return end >= text.size() || !IsWordCharacter(DecodeUtf8(text, end).value);
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  token_at_.push_back(kNone);
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].text.empty()) continue;
    first_bytes_[static_cast<uint8_t>(tokens_[i].text[0])] = true;
    uint32_t node = 0;
    for (const char byte : tokens_[i].text) {
      const auto [it, added] =
          edges_.try_emplace(Edge(node, byte), static_cast<uint32_t>(token_at_.size()));
      node = it->second;
      if (added) token_at_.push_back(kNone);
    }
    token_at_[node] = i;
  }
}

std::optional<TokenId> AddedTokens::Find(absl::string_view text) const {
  uint32_t node = 0;
  for (const char byte : text) {
    const auto it = edges_.find(Edge(node, byte));
    if (it == edges_.end()) return std::nullopt;
    node = it->second;
  }
  if (node == 0 || token_at_[node] == kNone) return std::nullopt;
  return tokens_[token_at_[node]].id;
}

uint32_t AddedTokens::Match(absl::string_view text, size_t pos, ByteRange special_range) const {
  uint32_t best = kNone;
  uint32_t node = 0;
  for (size_t end = pos; end < text.size(); ++end) {
    const auto it = edges_.find(Edge(node, text[end]));
    if (it == edges_.end()) break;
    node = it->second;
    const uint32_t index = token_at_[node];
    if (index == kNone) continue;
    const AddedToken& token = tokens_[index];
    if (token.special && (pos < special_range.begin || end + 1 > special_range.end)) continue;
    if (token.single_word && !StandsAlone(text, pos, end + 1)) continue;
    best = index;
  }
  return best;
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
  for (size_t pos = 0; pos < text.size();) {
    if (!first_bytes_[static_cast<uint8_t>(text[pos])]) {
      ++pos;
      continue;
    }
    while (range < special_ranges.size() && special_ranges[range].end <= pos) ++range;
    const ByteRange allowed = range < special_ranges.size() ? special_ranges[range] : ByteRange{};
    const uint32_t index = Match(text, pos, allowed);
    if (index == kNone) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = pos;
    size_t end = pos + token.text.size();
    while (token.lstrip && begin > done && IsSpaceAt(text, CharacterBefore(text, begin))) {
      begin = CharacterBefore(text, begin);
    }
    while (token.rstrip && end < text.size() && IsSpaceAt(text, end)) {
      end += DecodeUtf8(text, end).length;
    }
    add_text(begin);
    fragments.push_back({{static_cast<uint32_t>(begin), static_cast<uint32_t>(end)}, token.id});
    done = pos = end;
  }
  add_text(text.size());
  return fragments;
}

}  // namespace tessera::server
