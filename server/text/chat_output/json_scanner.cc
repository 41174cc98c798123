#include "server/text/chat_output/json_scanner.h"

#include <cctype>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"

namespace tessera::server {
namespace {

bool IsJsonWordCharacter(char c) {
  return absl::ascii_isalnum(c) || c == '+' || c == '-' || c == '.';
}

}  // namespace

JsonScanner::Result JsonScanner::Push(char c) {
  const bool in_string =
      phase_ == Phase::kString || phase_ == Phase::kEscape || phase_ == Phase::kHex;
  if (in_string) {
    part_ = open_.size() == 1 && is_key_ ? Part::kKey : Part::kValue;
    return PushInString(c);
  }
  if (phase_ == Phase::kWord) {
    if (IsJsonWordCharacter(c)) {
      word_ += c;
      return word_.size() > kMaxWordBytes ? Result::kBad : Result::kMore;
    }
    if (!nlohmann::json::accept(word_)) return Result::kBad;
    phase_ = Phase::kNext;
  }
  part_ = open_.size() > 1 ? Part::kValue : Part::kStructure;
  if (c == ' ' || c == '\n' || c == '\r' || c == '\t') return Result::kMore;
  return PushStructure(c);
}

JsonScanner::Result JsonScanner::PushInString(char c) {
  switch (phase_) {
    case Phase::kEscape:
      if (absl::string_view("\"\\/bfnrt").find(c) == absl::string_view::npos && c != 'u') {
        return Result::kBad;
      }
      phase_ = c == 'u' ? Phase::kHex : Phase::kString;
      hex_left_ = 4;
      return Result::kMore;
    case Phase::kHex:
      if (!absl::ascii_isxdigit(c)) return Result::kBad;
      if (--hex_left_ == 0) phase_ = Phase::kString;
      return Result::kMore;
    default:
      break;
  }
  const auto byte = static_cast<uint8_t>(c);
  if (byte < 0x20 || byte >= 0xF8) return Result::kBad;
  if (c == '\\') {
    phase_ = Phase::kEscape;
  } else if (c == '"') {
    phase_ = is_key_ ? Phase::kColon : Phase::kNext;
    if (open_.empty()) return Result::kDone;
  }
  return Result::kMore;
}

JsonScanner::Result JsonScanner::PushStructure(char c) {
  switch (phase_) {
    case Phase::kFirstItem:
      if (c == ']') return Close(c);
      [[fallthrough]];
    case Phase::kValue:
      return BeginValue(c);
    case Phase::kFirstKey:
      if (c == '}') return Close(c);
      [[fallthrough]];
    case Phase::kKey:
      if (c != '"') return Result::kBad;
      if (open_.size() == 1) part_ = Part::kKey;
      is_key_ = true;
      phase_ = Phase::kString;
      return Result::kMore;
    case Phase::kColon:
      phase_ = Phase::kValue;
      return c == ':' ? Result::kMore : Result::kBad;
    default:
      break;
  }
  if (c != ',') return Close(c);
  phase_ = open_.back() == '{' ? Phase::kKey : Phase::kValue;
  return Result::kMore;
}

JsonScanner::Result JsonScanner::BeginValue(char c) {
  part_ = open_.empty() ? Part::kStructure : Part::kValue;
  is_key_ = false;
  if (c == '"') {
    phase_ = Phase::kString;
  } else if (c == '{' || c == '[') {
    if (open_.size() == kMaxDepth) return Result::kBad;
    open_ += c;
    phase_ = c == '{' ? Phase::kFirstKey : Phase::kFirstItem;
  } else {
    if (open_.empty() || !IsJsonWordCharacter(c)) return Result::kBad;
    word_.assign(1, c);
    phase_ = Phase::kWord;
  }
  return Result::kMore;
}

JsonScanner::Result JsonScanner::Close(char c) {
  if (open_.back() != (c == '}' ? '{' : '[') || (c != '}' && c != ']')) return Result::kBad;
  open_.pop_back();
  phase_ = Phase::kNext;
  return open_.empty() ? Result::kDone : Result::kMore;
}

}  // namespace tessera::server
