#include "server/text/jinja/lexer.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/str_cat.h"
#include "server/text/utf8.h"

namespace tessera::server::jinja {
namespace {

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool IsNameStart(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80) != 0;
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNamePart(char c) { return IsNameStart(c) || IsDigit(c); }

// One kind of newline, and no newline at the very end.
std::string NormalizeNewlines(absl::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text.push_back(source[i]);
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  StatusOr<std::vector<Token>> Run() {
    while (pos_ < source_.size()) {
      TESSERA_RETURN_IF_ERROR(Root());
    }
    Add(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[nodiscard]] char At(size_t pos) const { return pos < source_.size() ? source_[pos] : '\0'; }

  void Add(TokenType type, std::string text) {
    if (type == TokenType::kText && text.empty()) return;
    tokens_.push_back({type, line_, Column(), std::move(text)});
  }

  void Advance(size_t to) {
    to = std::min(to, source_.size());
    const auto begin = source_.begin() + static_cast<ptrdiff_t>(pos_);
    const auto end = source_.begin() + static_cast<ptrdiff_t>(to);
    const auto lines = std::count(begin, end, '\n');
    if (lines > 0) line_begin_ = source_.rfind('\n', to - 1) + 1;
    line_ += static_cast<int>(lines);
    pos_ = to;
  }

  [[nodiscard]] int Column() const { return static_cast<int>(pos_ - line_begin_) + 1; }

  // Text up to the next tag, and the tag.
  Status Root() {
    size_t tag = pos_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos) {
        Add(TokenType::kText, source_.substr(pos_));
        Advance(source_.size());
        return absl::OkStatus();
      }
      const char kind = At(tag + 1);
      if (kind == '%' || kind == '{' || kind == '#') break;
    }
    const char kind = At(tag + 1);
    const char sign = At(tag + 2);
    AddTextBefore(tag, kind, sign);
    Advance(tag + 2);
    if (sign == '-' || sign == '+') Advance(pos_ + 1);
    if (kind == '#') return Comment();
    if (kind == '%' && TryRaw()) return Raw();
    const bool block = kind == '%';
    Add(block ? TokenType::kBlockBegin : TokenType::kOutputBegin, "");
    return Inside(block);
  }

  // The text before a tag, less the white space that the tag takes.
  void AddTextBefore(size_t tag, char kind, char sign) {
    absl::string_view text = absl::string_view(source_).substr(pos_, tag - pos_);
    if (sign == '-') {
      while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
    } else if (kind != '{' && sign != '+') {
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == text.npos ? 0 : newline + 1;
      const bool at_line_begin = newline != text.npos || line_starting_;
      const absl::string_view indent = text.substr(line_begin);
      if (at_line_begin && std::all_of(indent.begin(), indent.end(), IsSpace)) {
        text = text.substr(0, line_begin);
      }
    }
    Add(TokenType::kText, std::string(text));
  }

  // Behind a closing tag: "-" takes all white space, a block's end the newline.
  void AfterTag(char sign, bool trims_newline) {
    const size_t begin = pos_;
    size_t end = pos_;
    if (sign == '-') {
      while (end < source_.size() && IsSpace(source_[end])) ++end;
    } else if (trims_newline && sign != '+' && At(end) == '\n') {
      ++end;
    }
    line_starting_ = end > begin && source_[end - 1] == '\n';
    Advance(end);
  }

  Status Comment() {
    const size_t end = source_.find("#}", pos_);
    if (end == std::string::npos)
      return TemplateError(line_, Column(), "a comment is not closed with #}");
    const char sign = end > pos_ ? At(end - 1) : '\0';
    Advance(end + 2);
    AfterTag(sign == '-' || sign == '+' ? sign : '\0', true);
    return absl::OkStatus();
  }

  // Whether the tag that begins here is "raw"; moves behind it.
  bool TryRaw() {
    size_t pos = pos_;
    const auto skip = [&] {
      while (IsSpace(At(pos))) ++pos;
    };
    skip();
    if (source_.compare(pos, 3, "raw") != 0) return false;
    pos += 3;
    skip();
    const char sign = At(pos) == '-' ? At(pos++) : '\0';
    if (source_.compare(pos, 2, "%}") != 0) return false;
    Advance(pos + 2);
    AfterTag(sign, false);
    return true;
  }

  Status Raw() {
    const int line = line_;
    const int column = Column();
    for (size_t tag = pos_; (tag = source_.find("{%", tag)) != std::string::npos; tag += 2) {
      size_t pos = tag + 2;
      const char sign = At(pos) == '-' || At(pos) == '+' ? At(pos++) : '\0';
      while (IsSpace(At(pos))) ++pos;
      if (source_.compare(pos, 6, "endraw") != 0) continue;
      pos += 6;
      while (IsSpace(At(pos))) ++pos;
      const char end_sign = At(pos) == '-' || At(pos) == '+' ? At(pos++) : '\0';
      if (source_.compare(pos, 2, "%}") != 0) continue;
      AddTextBefore(tag, '%', sign);
      Advance(pos + 2);
      AfterTag(end_sign, true);
      return absl::OkStatus();
    }
    return TemplateError(line, column, "raw is not closed with endraw");
  }

  // The expression tokens of a tag, to its end.
  Status Inside(bool block) {
    const int begin_line = line_;
    const int begin_column = Column();
    const absl::string_view closing = block ? "%}" : "}}";
    std::string open;
    for (;;) {
      while (IsSpace(At(pos_))) Advance(pos_ + 1);
      if (pos_ >= source_.size()) {
        return TemplateError(begin_line, begin_column,
                             absl::StrCat("a tag is not closed with ", closing));
      }
      const size_t sign = At(pos_) == '-' || (block && At(pos_) == '+') ? 1 : 0;
      if (open.empty() && absl::string_view(source_).substr(pos_ + sign, 2) == closing) {
        const char mark = sign == 1 ? At(pos_) : '\0';
        Add(block ? TokenType::kBlockEnd : TokenType::kOutputEnd, "");
        Advance(pos_ + sign + 2);
        AfterTag(mark, block);
        return absl::OkStatus();
      }
      TESSERA_RETURN_IF_ERROR(OneToken(&open));
    }
  }

  Status OneToken(std::string* open) {
    const char c = At(pos_);
    if (IsNameStart(c)) {
      size_t end = pos_;
      while (IsNamePart(At(end)) && end < source_.size()) ++end;
      Add(TokenType::kName, source_.substr(pos_, end - pos_));
      Advance(end);
      return absl::OkStatus();
    }
    if (c == '\'' || c == '"') return String(c);
    if (IsDigit(c)) return Number();
    for (const absl::string_view op : {"**", "//", "==", "!=", ">=", "<="}) {
      if (absl::string_view(source_).substr(pos_, 2) == op) {
        Add(TokenType::kOperator, std::string(op));
        Advance(pos_ + 2);
        return absl::OkStatus();
      }
    }
    if (absl::string_view("+-*/%~<>=.,:|()[]{};").find(c) == absl::string_view::npos) {
      return TemplateError(line_, Column(),
                           absl::StrCat("unexpected character '", std::string(1, c), "'"));
    }
    if (c == '(' || c == '[' || c == '{') open->push_back(c == '(' ? ')' : (c == '[' ? ']' : '}'));
    if (c == ')' || c == ']' || c == '}') {
      if (open->empty() || open->back() != c) {
        return TemplateError(line_, Column(), absl::StrCat("unexpected '", std::string(1, c), "'"));
      }
      open->pop_back();
    }
    Add(TokenType::kOperator, std::string(1, c));
    Advance(pos_ + 1);
    return absl::OkStatus();
  }

  Status Number() {
    size_t end = pos_;
    bool is_float = false;
    std::string digits;
    const auto take = [&] {
      while (IsDigit(At(end)) || (At(end) == '_' && IsDigit(At(end + 1)))) {
        if (At(end) != '_') digits.push_back(At(end));
        ++end;
      }
    };
    take();
    if (At(end) == '.' && IsDigit(At(end + 1))) {
      is_float = true;
      digits.push_back('.');
      ++end;
      take();
    }
    if (At(end) == 'e' || At(end) == 'E') {
      const size_t sign = At(end + 1) == '+' || At(end + 1) == '-' ? 1 : 0;
      if (IsDigit(At(end + 1 + sign))) {
        is_float = true;
        digits.append(source_, end, 1 + sign);
        end += 1 + sign;
        take();
      }
    }
    Add(is_float ? TokenType::kFloat : TokenType::kInteger, std::move(digits));
    Advance(end);
    return absl::OkStatus();
  }

  Status String(char quote) {
    std::string value;
    size_t pos = pos_ + 1;
    for (;; ++pos) {
      if (pos >= source_.size()) return TemplateError(line_, Column(), "a string is not closed");
      if (source_[pos] == quote) break;
      if (source_[pos] != '\\') {
        value.push_back(source_[pos]);
        continue;
      }
      ++pos;
      TESSERA_RETURN_IF_ERROR(Escape(&pos, &value));
    }
    Add(TokenType::kString, std::move(value));
    Advance(pos + 1);
    return absl::OkStatus();
  }

  // Python's escapes; `pos` is at the character behind the backslash and ends on the last one.
  Status Escape(size_t* pos, std::string* value) {
    static constexpr absl::string_view kFrom = "\n\\'\"abfnrtv";
    static constexpr absl::string_view kTo("\0\\'\"\a\b\f\n\r\t\v", 11);
    const char c = At(*pos);
    if (const size_t i = kFrom.find(c); i != kFrom.npos && c != '\0') {
      if (c != '\n') value->push_back(kTo[i]);
      return absl::OkStatus();
    }
    size_t digits = c == 'x' ? 2 : (c == 'u' ? 4 : (c == 'U' ? 8 : 0));
    uint32_t code = 0;
    if (digits > 0) {
      for (size_t i = 0; i < digits; ++i) {
        const char h = At(*pos + 1 + i);
        if (!std::isxdigit(static_cast<unsigned char>(h))) {
          return TemplateError(line_, Column(), "a string has a broken escape");
        }
        code = code << 4 | static_cast<uint32_t>(IsDigit(h) ? h - '0' : (h | 0x20) - 'a' + 10);
      }
      *pos += digits;
    } else if (c >= '0' && c <= '7') {
      size_t i = 0;
      for (; i < 3 && At(*pos + i) >= '0' && At(*pos + i) <= '7'; ++i) {
        code = code << 3 | static_cast<uint32_t>(At(*pos + i) - '0');
      }
      *pos += i - 1;
    } else {
      // An unknown escape stands for itself.
      value->push_back('\\');
      --*pos;
      return absl::OkStatus();
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      return TemplateError(line_, Column(), "a string's escape is no character");
    }
    AppendUtf8(code, value);
    return absl::OkStatus();
  }

  std::string source_;
  size_t pos_ = 0;
  int line_ = 1;
  size_t line_begin_ = 0;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

Status TemplateError(int line, int column, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {"chat template failed", absl::StrCat("line ", line, ", column ", column),
                std::string(why), ""});
}

StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  return Lexer(NormalizeNewlines(source)).Run();
}

}  // namespace tessera::server::jinja
