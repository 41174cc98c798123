// A text that remembers where each of its bytes came from, and the editor that keeps that true.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera::server {

// Half-open range of byte offsets.
struct ByteRange {
  uint32_t begin = 0;
  uint32_t end = 0;

  bool operator==(const ByteRange&) const = default;
};

enum class Alignment { kOff, kTracked };

// `source[i]` is the range of the original text that byte i was made from; empty when not tracked.
struct AlignedText {
  std::string text;
  std::vector<ByteRange> source;
  Alignment alignment = Alignment::kOff;

  // `text` as a part of the original that begins at `offset`.
  static AlignedText From(absl::string_view text, size_t offset, Alignment alignment);
  // Bytes [begin, end) of it.
  [[nodiscard]] AlignedText Part(size_t begin, size_t end) const;
  [[nodiscard]] bool tracked() const { return alignment == Alignment::kTracked; }
};

// Rewrites an AlignedText from left to right into a new one.
class TextEditor {
 public:
  explicit TextEditor(const AlignedText& input);

  // Copies the next `bytes` bytes of the input.
  void Keep(size_t bytes);
  // Writes `replacement` for the next `bytes` bytes of the input (0 inserts).
  void Replace(size_t bytes, absl::string_view replacement);
  [[nodiscard]] size_t position() const { return position_; }
  // Keeps the rest and gives the result.
  [[nodiscard]] AlignedText Finish() &&;

 private:
  const AlignedText& input_;
  AlignedText output_;
  size_t position_ = 0;
};

}  // namespace tessera::server
