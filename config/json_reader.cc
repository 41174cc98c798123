#include "config/json_reader.h"

#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/text.h"

namespace tessera {
namespace {

// Recursive descent; the depth limit bounds the stack. Every function returns false after the first
// problem.
class JsonParser {
 public:
  JsonParser(absl::string_view text, absl::string_view file, std::vector<Problem>* problems)
      : text_(text), file_(file), problems_(problems) {
    if (absl::StartsWith(text_, "\xEF\xBB\xBF")) at_ = 3;
  }

  bool ParseDocument(Node* root) {
    if (!ParseValue(0, root)) return false;
    SkipSpace();
    return at_ == text_.size() || Fail("has text after the JSON value", "");
  }

 private:
  bool Fail(absl::string_view message, absl::string_view hint) {
    return FailAt(position_, message, hint);
  }

  bool FailAt(Position position, absl::string_view message, absl::string_view hint) {
    problems_->push_back(
        {std::string(file_), position, "", std::string(message), std::string(hint)});
    return false;
  }

  [[nodiscard]] char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void Advance() {
    const unsigned char c = static_cast<unsigned char>(text_[at_++]);
    if (c == '\n') {
      ++position_.line;
      position_.column = 1;
    } else if (at_ >= text_.size() || (static_cast<unsigned char>(text_[at_]) & 0xC0) != 0x80) {
      ++position_.column;
    }
  }

  void SkipSpace() {
    while (Peek() == ' ' || Peek() == '\t' || Peek() == '\n' || Peek() == '\r') Advance();
  }

  bool Expect(char c) {
    SkipSpace();
    if (Peek() != c) {
      return Fail(absl::StrCat("is not JSON: expected `", std::string(1, c), "`"), "");
    }
    Advance();
    return true;
  }

  bool ParseValue(int depth, Node* node) {
    SkipSpace();
    node->position = position_;
    switch (Peek()) {
      case '{':
        return ParseMap(depth, node);
      case '[':
        return ParseList(depth, node);
      case '"':
        node->kind = NodeKind::kScalar;
        return ParseString(&node->text);
      default:
        return ParseWord(node);
    }
  }

  bool CheckDepth(int depth) {
    return depth < kMaxDepth ||
           Fail(absl::StrCat("is nested more than ", kMaxDepth, " levels deep"), "");
  }

  bool ParseMap(int depth, Node* node) {
    if (!CheckDepth(depth)) return false;
    node->kind = NodeKind::kMap;
    Advance();
    SkipSpace();
    if (Peek() == '}') return Advance(), true;
    absl::flat_hash_set<std::string> keys;
    while (true) {
      SkipSpace();
      MapEntry entry;
      entry.position = position_;
      if (Peek() != '"') return Fail("is not JSON: expected a key in quotes", "");
      if (!ParseString(&entry.key)) return false;
      if (!keys.insert(entry.key).second) {
        return FailAt(entry.position, absl::StrCat("repeats the key ", Quoted(entry.key)),
                      "keep one of them");
      }
      if (!Expect(':') || !ParseValue(depth + 1, &entry.value)) return false;
      node->entries.push_back(std::move(entry));
      SkipSpace();
      if (Peek() != ',') return Expect('}');
      Advance();
    }
  }

  bool ParseList(int depth, Node* node) {
    if (!CheckDepth(depth)) return false;
    node->kind = NodeKind::kList;
    Advance();
    SkipSpace();
    if (Peek() == ']') return Advance(), true;
    while (true) {
      Node item;
      if (!ParseValue(depth + 1, &item)) return false;
      node->items.push_back(std::move(item));
      SkipSpace();
      if (Peek() != ',') return Expect(']');
      Advance();
    }
  }

  bool ParseString(std::string* out) {
    const Position start = position_;
    Advance();
    while (at_ < text_.size() && Peek() != '"') {
      if (Peek() == '\n' || Peek() == '\r' || Peek() == '\t') {
        return Fail("is not JSON: a line end or tab within quotes", "write \\n or \\t");
      }
      if (Peek() == '\\') {
        if (!ParseEscape(out)) return false;
      } else {
        out->push_back(Peek());
        Advance();
      }
    }
    if (at_ >= text_.size()) return FailAt(start, "is not JSON: quotes are not closed", "");
    Advance();
    return true;
  }

  bool ParseHex4(char32_t* value) {
    *value = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = Peek();
      if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) {
        return Fail("is not JSON: \\u needs four hexadecimal digits", "");
      }
      const int digit =
          c <= '9' ? c - '0' : absl::ascii_tolower(static_cast<unsigned char>(c)) - 'a' + 10;
      *value = *value * 16 + static_cast<char32_t>(digit);
      Advance();
    }
    return true;
  }

  bool ParseEscape(std::string* out) {
    static constexpr absl::string_view kNames = "\"\\/bfnrt";
    static constexpr absl::string_view kValues = "\"\\/\b\f\n\r\t";
    Advance();
    if (Peek() != 'u') {
      const size_t found = at_ < text_.size() ? kNames.find(Peek()) : absl::string_view::npos;
      if (found == absl::string_view::npos) return Fail("is not JSON: unknown escape", "");
      out->push_back(kValues[found]);
      Advance();
      return true;
    }
    Advance();
    char32_t code = 0;
    if (!ParseHex4(&code)) return false;
    if (code >= 0xD800 && code < 0xDC00) {
      char32_t low = 0;
      if (!absl::StartsWith(text_.substr(at_), "\\u")) {
        return Fail("is not JSON: half of a surrogate pair", "");
      }
      Advance();
      Advance();
      if (!ParseHex4(&low)) return false;
      if (low < 0xDC00 || low > 0xDFFF) return Fail("is not JSON: half of a surrogate pair", "");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
      return Fail("is not JSON: half of a surrogate pair", "");
    }
    AppendUtf8(code, out);
    return true;
  }

  bool ParseWord(Node* node) {
    const size_t begin = at_;
    while (absl::ascii_isalnum(static_cast<unsigned char>(Peek())) || Peek() == '+' ||
           Peek() == '-' || Peek() == '.') {
      Advance();
    }
    const absl::string_view word = text_.substr(begin, at_ - begin);
    if (word == "null") return true;
    if (word != "true" && word != "false" && !IsNumber(word)) {
      return FailAt(node->position,
                    word.empty() ? "is not JSON: expected a value"
                                 : absl::StrCat("is not JSON: ", Quoted(word)),
                    word.empty() ? "" : "put text in quotes");
    }
    node->kind = NodeKind::kScalar;
    node->text = std::string(word);
    return true;
  }

  static size_t Digits(absl::string_view text) {
    size_t n = 0;
    while (n < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[n]))) ++n;
    return n;
  }

  static bool IsNumber(absl::string_view word) {
    if (absl::StartsWith(word, "-")) word.remove_prefix(1);
    size_t digits = Digits(word);
    if (digits == 0 || (digits > 1 && word[0] == '0')) return false;
    word.remove_prefix(digits);
    if (absl::StartsWith(word, ".")) {
      digits = Digits(word.substr(1));
      if (digits == 0) return false;
      word.remove_prefix(1 + digits);
    }
    if (absl::StartsWithIgnoreCase(word, "e")) {
      word.remove_prefix(1);
      if (absl::StartsWith(word, "+") || absl::StartsWith(word, "-")) word.remove_prefix(1);
      digits = Digits(word);
      if (digits == 0) return false;
      word.remove_prefix(digits);
    }
    return word.empty();
  }

  absl::string_view text_;
  absl::string_view file_;
  std::vector<Problem>* problems_;
  size_t at_ = 0;
  Position position_{1, 1};
};

}  // namespace

std::optional<Node> ReadJson(absl::string_view text, absl::string_view file,
                             std::vector<Problem>* problems) {
  Node root;
  if (!JsonParser(text, file, problems).ParseDocument(&root)) return std::nullopt;
  if (root.kind == NodeKind::kNull) root.kind = NodeKind::kMap;
  return root;
}

}  // namespace tessera
