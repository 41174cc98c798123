#include "server/text/jinja/text_builtins.h"

#include <algorithm>

namespace tessera::server::jinja {

StatusOr<Value> ReplaceText(Interpreter& interpreter, const MarkedText& text,
                            const MarkedText& from, const MarkedText& to, int64_t count) {
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(text.size() / 128));
  const size_t matches = CountMatches(text.bytes(), from.bytes(), count);
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(matches / 8));
  size_t added = 0;
  if (__builtin_mul_overflow(matches, to.size(), &added)) added = SIZE_MAX / 2;
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(text.size() + added - matches * from.size()));
  return Value::Text(Replace(text, from.bytes(), to, count));
}

StatusOr<Value> PadText(Interpreter& interpreter, const MarkedText& text, int64_t width,
                        const MarkedText& fill, Side text_side) {
  const size_t wide = static_cast<size_t>(std::max<int64_t>(width, 0));
  const size_t length = text.Length();
  if (wide <= length) return Value::Text(text);
  if (wide > interpreter.limits().text_bytes) return interpreter.ReserveText(wide);
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(text.size() + (wide - length) * fill.size()));
  return Value::Text(Pad(text, wide, fill, text_side));
}

StatusOr<std::vector<MarkedText>> SplitTextLines(Interpreter& interpreter, const MarkedText& text,
                                                 LineEnds ends) {
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(text.size() / 64));
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(4 * CountLineEnds(text.bytes())));
  return SplitLines(text, ends);
}

StatusOr<MarkedText> EscapeHtml(Interpreter& interpreter, const MarkedText& text) {
  constexpr absl::string_view kSpecial = "&<>'\"";
  constexpr absl::string_view kEntities[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
  constexpr size_t kMostAdded = 4;  // bytes a character
  const absl::string_view bytes = text.bytes();
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(bytes.size() / 64));
  const auto special = static_cast<size_t>(std::count_if(bytes.begin(), bytes.end(), [&](char c) {
    return kSpecial.find(c) != absl::string_view::npos;
  }));
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(bytes.size() + kMostAdded * special));
  MarkedText result;
  for (size_t pos = 0;; ++pos) {
    const size_t at = std::min(bytes.find_first_of(kSpecial, pos), bytes.size());
    result.Append(text, pos, at - pos);
    if (at == bytes.size()) break;
    result.Append(kEntities[kSpecial.find(bytes[at])], text.OriginAt(at));
    pos = at;
  }
  result.MarkHtml();
  return result;
}

StatusOr<Value> JoinItems(Interpreter& interpreter, const List& items,
                          const MarkedText& separator) {
  MarkedText joined;
  for (size_t i = 0; i < items.size(); ++i) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
    TESSERA_ASSIGN_OR_RETURN(const MarkedText part, interpreter.Str(items[i]));
    const size_t between = i > 0 ? separator.size() : 0;
    TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(between + part.size()));
    if (joined.size() + between + part.size() > interpreter.limits().text_bytes) {
      return interpreter.ReserveText(joined.size() + between + part.size());
    }
    if (i > 0) joined.Append(separator);
    joined.Append(part);
  }
  return Value::Text(std::move(joined));
}

StatusOr<Value> TextList(Interpreter& interpreter, std::vector<MarkedText> parts) {
  List items;
  items.reserve(parts.size());
  for (MarkedText& part : parts) items.push_back(Value::Text(std::move(part)));
  return interpreter.MakeList(std::move(items));
}

}  // namespace tessera::server::jinja
