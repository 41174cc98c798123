#include "server/text/detokenizer.h"

namespace tessera::server {
namespace {

bool Shown(const TokenBytes& bytes, TokenId id, ShowSpecial show) {
  return id < bytes.size() && (bytes.kind(id) != TokenKind::kControl || show == ShowSpecial::kYes);
}

bool Strips(const DecodeOptions& options) { return options.leading_space == LeadingSpace::kStrip; }

}  // namespace

Detokenizer::Detokenizer(const TokenBytes& bytes, const DecodeOptions& options)
    : bytes_(bytes), options_(options), strip_next_(Strips(options)) {}

void Detokenizer::Append(TokenId id, std::string* out) {
  if (!Shown(bytes_, id, options_.show_special)) return;
  if (!strip_next_) return repair_.Append(bytes_.bytes(id), out);
  const std::string first = bytes_.First(id);
  strip_next_ = bytes_.LeavesStart(id, first);
  repair_.Append(first, out);
}

std::string DecodeBytes(const TokenBytes& bytes, std::span<const TokenId> ids,
                        const DecodeOptions& options) {
  bool strip = Strips(options);
  std::string raw;
  for (const TokenId id : ids) {
    if (!Shown(bytes, id, options.show_special)) continue;
    if (strip) {
      const std::string first = bytes.First(id);
      strip = bytes.LeavesStart(id, first);
      raw += first;
    } else {
      const absl::string_view text = bytes.bytes(id);
      raw.append(text.data(), text.size());
    }
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
