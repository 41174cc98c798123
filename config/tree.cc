#include "config/tree.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/text.h"
#include "config/json_reader.h"
#include "config/yaml_reader.h"

namespace tessera {
namespace {

Position PositionOf(absl::string_view text, size_t offset) {
  Position position{1, 1};
  for (const char c : text.substr(0, offset)) {
    if (c == '\n') {
      ++position.line;
      position.column = 1;
    } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
      ++position.column;
    }
  }
  return position;
}

}  // namespace

Node::Node() = default;
Node::Node(const Node&) = default;
Node::Node(Node&&) noexcept = default;
Node& Node::operator=(const Node&) = default;
Node& Node::operator=(Node&&) noexcept = default;
Node::~Node() = default;

const Node* Node::Find(absl::string_view key) const {
  for (const MapEntry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

Node* Node::Find(absl::string_view key) {
  return const_cast<Node*>(static_cast<const Node*>(this)->Find(key));
}

bool Node::SameContent(const Node& other) const {
  if (kind != other.kind || text != other.text) return false;
  const auto same_item = [](const Node& a, const Node& b) { return a.SameContent(b); };
  if (!std::equal(items.begin(), items.end(), other.items.begin(), other.items.end(), same_item)) {
    return false;
  }
  const auto same_entry = [](const MapEntry& a, const MapEntry& b) {
    return a.key == b.key && a.value.SameContent(b.value);
  };
  return std::equal(entries.begin(), entries.end(), other.entries.begin(), other.entries.end(),
                    same_entry);
}

bool CheckText(absl::string_view text, absl::string_view file, std::vector<Problem>* problems) {
  if (text.size() > kMaxTextBytes) {
    problems->push_back(
        {std::string(file),
         {},
         "",
         absl::StrCat("has ", text.size(), " bytes; at most ", kMaxTextBytes, " are read"),
         "a settings file holds settings only"});
    return false;
  }
  if (const std::optional<size_t> bad = FindInvalidUtf8(text)) {
    problems->push_back({std::string(file), PositionOf(text, *bad), "", "is not UTF-8 here",
                         "save the file as UTF-8"});
    return false;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool control =
        static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\n' && c != '\r';
    if (!control && c != 0x7F) continue;
    problems->push_back({std::string(file), PositionOf(text, i), "", "has a control character here",
                         "take it out"});
    return false;
  }
  return true;
}

std::optional<Node> ReadTree(absl::string_view text, TextFormat format, absl::string_view file,
                             std::vector<Problem>* problems) {
  if (!CheckText(text, file, problems)) return std::nullopt;
  return format == TextFormat::kJson ? ReadJson(text, file, problems)
                                     : ReadYaml(text, file, problems);
}

TextFormat FormatOfName(absl::string_view file) {
  return absl::EndsWithIgnoreCase(file, ".json") ? TextFormat::kJson : TextFormat::kYaml;
}

}  // namespace tessera
