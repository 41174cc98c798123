#include "server/text/aligned_text.h"

#include <utility>

#include "config/foundation/check.h"

namespace tessera::server {

AlignedText AlignedText::From(absl::string_view text, size_t offset, Alignment alignment) {
  AlignedText aligned;
  aligned.text.assign(text.data(), text.size());
  aligned.alignment = alignment;
  if (alignment == Alignment::kTracked) {
    aligned.source.reserve(text.size());
    for (size_t i = 0; i < text.size(); ++i) {
      const uint32_t begin = static_cast<uint32_t>(offset + i);
      aligned.source.push_back({begin, begin + 1});
    }
  }
  return aligned;
}

AlignedText AlignedText::Part(size_t begin, size_t end) const {
  AlignedText part;
  part.text = text.substr(begin, end - begin);
  part.alignment = alignment;
  if (tracked()) {
    part.source.assign(source.begin() + static_cast<ptrdiff_t>(begin),
                       source.begin() + static_cast<ptrdiff_t>(end));
  }
  return part;
}

TextEditor::TextEditor(const AlignedText& input) : input_(input) {
  output_.alignment = input.alignment;
  output_.text.reserve(input.text.size());
  if (input.tracked()) output_.source.reserve(input.source.size());
}

void TextEditor::Keep(size_t bytes) {
  TESSERA_DCHECK(bytes <= input_.text.size() - position_);
  output_.text.append(input_.text, position_, bytes);
  if (input_.tracked()) {
    const auto begin = input_.source.begin() + static_cast<ptrdiff_t>(position_);
    output_.source.insert(output_.source.end(), begin, begin + static_cast<ptrdiff_t>(bytes));
  }
  position_ += bytes;
}

void TextEditor::Replace(size_t bytes, absl::string_view replacement) {
  TESSERA_DCHECK(bytes <= input_.text.size() - position_);
  output_.text.append(replacement.data(), replacement.size());
  if (input_.tracked()) {
    ByteRange range;
    if (bytes > 0) {
      range = {input_.source[position_].begin, input_.source[position_ + bytes - 1].end};
    } else if (!input_.source.empty()) {
      const uint32_t at = position_ < input_.source.size() ? input_.source[position_].begin
                                                           : input_.source.back().end;
      range = {at, at};
    }
    output_.source.insert(output_.source.end(), replacement.size(), range);
  }
  position_ += bytes;
}

AlignedText TextEditor::Finish() && {
  Keep(input_.text.size() - position_);
  return std::move(output_);
}

}  // namespace tessera::server
