#include "server/text/detokenizer.h"

namespace tessera::server {
namespace {

// The bytes that `id` writes; `strip` is cleared once a token has written.
absl::string_view Written(const TokenBytes& bytes, TokenId id, ShowSpecial show, bool* strip) {
  if (id >= bytes.size()) return {};
  if (bytes.kind(id) == TokenKind::kControl && show == ShowSpecial::kNo) return {};
  absl::string_view text = bytes.bytes(id);
  if (*strip && !text.empty()) {
    *strip = false;
    if (text.front() == ' ') text.remove_prefix(1);
  }
  return text;
}

bool Strips(const TokenBytes& bytes, const DecodeOptions& options) {
  return options.leading_space == LeadingSpace::kStrip && bytes.strips_first_space();
}

}  // namespace

Detokenizer::Detokenizer(const TokenBytes& bytes, const DecodeOptions& options)
    : bytes_(bytes), options_(options), strip_next_(Strips(bytes, options)) {}

void Detokenizer::Append(TokenId id, std::string* out) {
  repair_.Append(Written(bytes_, id, options_.show_special, &strip_next_), out);
}

std::string DecodeBytes(const TokenBytes& bytes, std::span<const TokenId> ids,
                        const DecodeOptions& options) {
  bool strip = Strips(bytes, options);
  std::string raw;
  for (const TokenId id : ids) {
    const absl::string_view text = Written(bytes, id, options.show_special, &strip);
    raw.append(text.data(), text.size());
  }
  return raw;
}

std::string Decode(const TokenBytes& bytes, std::span<const TokenId> ids,
                   const DecodeOptions& options) {
  std::string text;
  Utf8Repair repair;
  repair.Append(DecodeBytes(bytes, ids, options), &text);
  repair.Flush(&text);
  return text;
}

}  // namespace tessera::server
