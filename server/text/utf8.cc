#include "server/text/utf8.h"

#include "config/foundation/check.h"

namespace tessera::server {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

uint8_t Byte(absl::string_view text, size_t pos) { return static_cast<uint8_t>(text[pos]); }

struct SymbolTables {
  std::array<char32_t, 256> symbol{};
  std::array<int16_t, 512> byte{};

  SymbolTables() {
    byte.fill(-1);
    char32_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable =
          (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
      symbol[b] = printable ? static_cast<char32_t>(b) : next++;
      byte[symbol[b]] = static_cast<int16_t>(b);
    }
  }
};

const SymbolTables& Tables() {
  static const SymbolTables tables;
  return tables;
}

}  // namespace

CodePoint DecodeUtf8(absl::string_view text, size_t pos) {
  TESSERA_DCHECK(pos < text.size());
  const uint8_t lead = Byte(text, pos);
  if (lead < 0x80) return {lead, 1};
  const auto tail = [&](size_t i) { return static_cast<char32_t>(Byte(text, pos + i) & 0x3F); };
  if (lead < 0xE0) return {(lead & 0x1Fu) << 6 | tail(1), 2};
  if (lead < 0xF0) return {(lead & 0x0Fu) << 12 | tail(1) << 6 | tail(2), 3};
  return {(lead & 0x07u) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4};
}

namespace {

// What may follow a lead byte: how many bytes, and the range of the first of them.
struct Lead {
  size_t tail = 0;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  bool valid = false;
};

Lead ClassifyLead(uint8_t byte) {
  if (byte < 0x80) return {0, 0x80, 0xBF, true};
  if (byte >= 0xC2 && byte <= 0xDF) return {1, 0x80, 0xBF, true};
  if (byte == 0xE0) return {2, 0xA0, 0xBF, true};
  if (byte == 0xED) return {2, 0x80, 0x9F, true};
  if (byte >= 0xE1 && byte <= 0xEF) return {2, 0x80, 0xBF, true};
  if (byte == 0xF0) return {3, 0x90, 0xBF, true};
  if (byte >= 0xF1 && byte <= 0xF3) return {3, 0x80, 0xBF, true};
  if (byte == 0xF4) return {3, 0x80, 0x8F, true};
  return {};
}

}  // namespace

void Utf8Repair::Append(absl::string_view bytes, std::string* out) {
  for (const char c : bytes) {
    const uint8_t byte = static_cast<uint8_t>(c);
    if (needed_ > 0) {
      if (byte >= low_ && byte <= high_) {
        pending_[held_++] = c;
        low_ = 0x80;
        high_ = 0xBF;
        if (--needed_ == 0) {
          out->append(pending_.data(), held_);
          held_ = 0;
        }
        continue;
      }
      Flush(out);  // the byte that broke the character may start another
    }
    const Lead lead = ClassifyLead(byte);
    if (!lead.valid) {
      out->append(kReplacement);
    } else if (lead.tail == 0) {
      out->push_back(c);
    } else {
      pending_[0] = c;
      held_ = 1;
      needed_ = lead.tail;
      low_ = lead.low;
      high_ = lead.high;
    }
  }
}

void Utf8Repair::Flush(std::string* out) {
  if (held_ > 0) out->append(kReplacement);
  held_ = 0;
  needed_ = 0;
}

char32_t ByteToSymbol(uint8_t byte) { return Tables().symbol[byte]; }

std::optional<uint8_t> SymbolToByte(char32_t symbol) {
  if (symbol >= Tables().byte.size() || Tables().byte[symbol] < 0) return std::nullopt;
  return static_cast<uint8_t>(Tables().byte[symbol]);
}

std::optional<std::string> SymbolsToBytes(absl::string_view text) {
  if (FindInvalidUtf8(text).has_value()) return std::nullopt;
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint code = DecodeUtf8(text, pos);
    const std::optional<uint8_t> byte = SymbolToByte(code.value);
    if (!byte.has_value()) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
    pos += code.length;
  }
  return bytes;
}

}  // namespace tessera::server
