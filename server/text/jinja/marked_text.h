// A string whose bytes remember whether a template or a request wrote them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/text/text_segment.h"

namespace tessera::server::jinja {

// UTF-8 with one origin a byte; the marks are stored only where origins are mixed.
class MarkedText {
 public:
  MarkedText() = default;
  explicit MarkedText(std::string bytes, TextOrigin origin = TextOrigin::kTemplate)
      : bytes_(std::move(bytes)), origin_(origin) {}

  [[nodiscard]] const std::string& bytes() const { return bytes_; }
  [[nodiscard]] size_t size() const { return bytes_.size(); }
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  [[nodiscard]] TextOrigin OriginAt(size_t pos) const {
    return marks_.empty() ? origin_ : static_cast<TextOrigin>(marks_[pos]);
  }
  // kData when any byte is data.
  [[nodiscard]] TextOrigin Origin() const;
  // Came out of `safe` or `escape`: what is added to it is escaped for HTML, as Python does.
  [[nodiscard]] bool is_html() const { return is_html_; }
  void MarkHtml() { is_html_ = true; }

  void Append(const MarkedText& other) { Append(other, 0, other.size()); }
  void Append(const MarkedText& other, size_t begin, size_t length);
  void Append(absl::string_view bytes, TextOrigin origin);
  [[nodiscard]] MarkedText Substr(size_t begin, size_t length = std::string::npos) const;

  // Code points.
  [[nodiscard]] size_t Length() const;
  // The byte offset of code point `index`; size() past the end.
  [[nodiscard]] size_t ByteOf(size_t index) const;
  [[nodiscard]] std::vector<TextSegment> Segments() const;

 private:
  std::string bytes_;
  std::string marks_;  // empty, or one TextOrigin a byte
  TextOrigin origin_ = TextOrigin::kTemplate;
  bool is_html_ = false;
};

}  // namespace tessera::server::jinja
