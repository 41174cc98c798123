// JSON checked a character at a time, with a view of the outermost object's members.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tessera::server {

class JsonScanner {
 public:
  static constexpr size_t kMaxDepth = 128;
  static constexpr size_t kMaxWordBytes = 512;  // of a number

  enum class Result : uint8_t {
    kMore,
    kDone,  // the value ended with this character
    kBad    // no JSON, or deeper than kMaxDepth, or a longer number
  };
  // Of the outermost object: what the last character belonged to.
  enum class Part : uint8_t { kStructure, kKey, kValue };

  // The value must be an object, a list or a string. Not to be called after kDone or kBad.
  Result Push(char c);
  [[nodiscard]] Part part() const { return part_; }
  // After the last character, no member of the outermost object is under way.
  [[nodiscard]] bool between_members() const {
    return open_.empty() ||
           (open_.size() == 1 && (phase_ == Phase::kNext || phase_ == Phase::kKey));
  }

 private:
  enum class Phase : uint8_t {
    kValue,
    kFirstItem,  // of a list, or its end
    kFirstKey,   // of an object, or its end
    kKey,
    kColon,
    kNext,  // a comma or the end
    kString,
    kEscape,
    kHex,
    kWord  // a number, true, false, null
  };

  Result PushInString(char c);
  Result PushStructure(char c);
  Result BeginValue(char c);
  Result Close(char c);

  Phase phase_ = Phase::kValue;
  Part part_ = Part::kStructure;
  std::string open_;  // '{' and '['
  std::string word_;
  bool is_key_ = false;  // the string under way
  int hex_left_ = 0;
};

}  // namespace tessera::server
