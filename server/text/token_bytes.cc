#include "server/text/token_bytes.h"

#include "config/foundation/check.h"

namespace tessera::server {

void TokenBytes::Add(absl::string_view bytes, TokenKind kind) {
  TESSERA_CHECK(data_.size() + bytes.size() <= UINT32_MAX);
  data_.append(bytes.data(), bytes.size());
  offsets_.push_back(static_cast<uint32_t>(data_.size()));
  kinds_.push_back(kind);
}

void TokenBytes::Reserve(size_t tokens, size_t bytes) {
  offsets_.reserve(tokens + 1);
  kinds_.reserve(tokens);
  data_.reserve(bytes);
}

absl::string_view TokenBytes::bytes(TokenId id) const {
  TESSERA_DCHECK(id < size());
  return absl::string_view(data_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
}

std::string TokenBytes::First(TokenId id) const {
  if (const auto it = first_.find(id); it != first_.end()) return it->second;
  std::string text(bytes(id));
  if (first_token_ == FirstToken::kWithoutSpaces) std::erase(text, ' ');
  const bool one = first_token_ == FirstToken::kWithoutOneSpace ||
                   first_token_ == FirstToken::kWithoutLeadingSpaces;
  if (one && !text.empty() && text.front() == ' ') text.erase(0, 1);
  return text;
}

}  // namespace tessera::server
