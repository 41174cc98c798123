#include "server/text/jinja/marked_text.h"

#include <algorithm>

namespace tessera::server::jinja {
namespace {

bool IsStart(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

}  // namespace

TextOrigin MarkedText::Origin() const {
  if (marks_.empty()) return origin_;
  const char data = static_cast<char>(TextOrigin::kData);
  return marks_.find(data) == std::string::npos ? TextOrigin::kTemplate : TextOrigin::kData;
}

void MarkedText::Append(const MarkedText& other, size_t begin, size_t length) {
  length = std::min(length, other.size() - begin);
  if (other.marks_.empty()) {
    Append(absl::string_view(other.bytes_).substr(begin, length), other.origin_);
    return;
  }
  if (marks_.empty()) marks_.assign(bytes_.size(), static_cast<char>(origin_));
  bytes_.append(other.bytes_, begin, length);
  marks_.append(other.marks_, begin, length);
}

void MarkedText::Append(absl::string_view bytes, TextOrigin origin) {
  if (bytes.empty()) return;
  if (bytes_.empty()) {
    origin_ = origin;
    marks_.clear();
  }
  if (marks_.empty() && origin != origin_) {
    marks_.assign(bytes_.size(), static_cast<char>(origin_));
  }
  bytes_.append(bytes.data(), bytes.size());
  if (!marks_.empty()) marks_.append(bytes.size(), static_cast<char>(origin));
}

MarkedText MarkedText::Substr(size_t begin, size_t length) const {
  MarkedText part;
  if (begin < size()) part.Append(*this, begin, length);
  return part;
}

size_t MarkedText::Length() const {
  return static_cast<size_t>(std::count_if(bytes_.begin(), bytes_.end(), IsStart));
}

size_t MarkedText::ByteOf(size_t index) const {
  size_t pos = 0;
  while (pos < bytes_.size()) {
    if (IsStart(bytes_[pos])) {
      if (index == 0) return pos;
      --index;
    }
    ++pos;
  }
  return pos;
}

std::vector<TextSegment> MarkedText::Segments() const {
  std::vector<TextSegment> segments;
  size_t begin = 0;
  while (begin < size()) {
    const TextOrigin origin = OriginAt(begin);
    size_t end = begin + 1;
    if (marks_.empty()) {
      end = size();
    } else {
      end = std::min(marks_.find_first_not_of(static_cast<char>(origin), begin), size());
    }
    segments.push_back({bytes_.substr(begin, end - begin), origin});
    begin = end;
  }
  return segments;
}

}  // namespace tessera::server::jinja
