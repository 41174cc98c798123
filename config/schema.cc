#include "config/schema.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "config/foundation/text.h"

namespace tessera {
namespace {

std::string Join(absl::string_view path, absl::string_view key) {
  return path.empty() ? std::string(key) : absl::StrCat(path, ".", key);
}

std::string ItemPath(absl::string_view path, size_t index) {
  return absl::StrCat(path, "[", index, "]");
}

// Accessors take a mutable owner; the callers below only read through it.
void* Mutable(const void* owner) { return const_cast<void*>(owner); }

// A YAML scalar that reads back as `text`.
std::string YamlScalar(absl::string_view text) {
  static constexpr absl::string_view kNulls[] = {"", "~", "null", "Null", "NULL"};
  bool plain = std::find(std::begin(kNulls), std::end(kNulls), text) == std::end(kNulls);
  for (const char c : text) {
    plain = plain && (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' ||
                      c == '/' || c == ':' || c == '-');
  }
  plain = plain && text.front() != '-' && text.front() != ':' && text.back() != ':' &&
          text != "..." && text.front() != '.';
  if (plain) return std::string(text);
  std::string quoted;
  AppendQuoted(text, &quoted);
  return quoted;
}

bool IsIndex(absl::string_view key) {
  return !key.empty() && key.find_first_not_of("0123456789") == absl::string_view::npos;
}

class Dumper {
 public:
  explicit Dumper(const Origins& origins) : origins_(origins) {}

  void Struct(const StructTable& table, const void* owner, absl::string_view path, int indent) {
    for (const Field& field : table.fields) Entry(field, owner, Join(path, field.key), indent);
  }
  [[nodiscard]] std::string Take() { return std::move(out_); }

 private:
  void Entry(const Field& field, const void* owner, const std::string& path, int indent) {
    switch (field.kind) {
      case FieldKind::kScalar: {
        const std::string text = field.render(owner);
        const bool unset = field.is_optional && text == "null";
        Line(indent, absl::StrCat(field.key, ": ", unset ? text : YamlScalar(text)), path);
        return;
      }
      case FieldKind::kTextList: {
        std::string items;
        for (const std::string& item : *field.text_list(Mutable(owner))) {
          absl::StrAppend(&items, items.empty() ? "" : ", ");
          AppendQuoted(item, &items);
        }
        Line(indent, absl::StrCat(field.key, ": [", items, "]"), path);
        return;
      }
      case FieldKind::kStruct:
        absl::StrAppend(&out_, std::string(indent, ' '), field.key, ":\n");
        Struct(*field.table, field.nested(Mutable(owner)), path, indent + 2);
        return;
      case FieldKind::kStructList:
        List(field, owner, path, indent);
        return;
    }
  }

  void List(const Field& field, const void* owner, const std::string& path, int indent) {
    const size_t size = field.list.size(owner);
    if (size == 0) return Line(indent, absl::StrCat(field.key, ": []"), path);
    absl::StrAppend(&out_, std::string(indent, ' '), field.key, ":\n");
    for (size_t i = 0; i < size; ++i) {
      const size_t begin = out_.size();
      Struct(*field.table, field.list.at(Mutable(owner), i), ItemPath(path, i), indent + 4);
      out_[begin + static_cast<size_t>(indent) + 2] = '-';
    }
  }

  void Line(int indent, absl::string_view text, const std::string& path) {
    absl::StrAppend(&out_, std::string(indent, ' '), text, "  # ");
    const auto found = origins_.find(path);
    if (found == origins_.end()) {
      out_ += "default\n";
      return;
    }
    // The source is a name from outside; a line end in it must not end the comment.
    const std::string source = Quoted(found->second.source);
    absl::StrAppend(&out_, absl::string_view(source).substr(1, source.size() - 2));
    if (found->second.position.line > 0) absl::StrAppend(&out_, ":", found->second.position.line);
    out_ += "\n";
  }

  const Origins& origins_;
  std::string out_;
};

void Diff(const StructTable& table, const void* before, const void* after, absl::string_view path,
          std::vector<Change>* changes);

void DiffField(const Field& field, const void* before, const void* after, const std::string& path,
               std::vector<Change>* changes) {
  switch (field.kind) {
    case FieldKind::kScalar: {
      const std::string old_text = field.render(before);
      const std::string new_text = field.render(after);
      if (old_text != new_text) changes->push_back({path, old_text, new_text, field.reload});
      return;
    }
    case FieldKind::kTextList: {
      const auto& old_list = *field.text_list(Mutable(before));
      const auto& new_list = *field.text_list(Mutable(after));
      if (old_list == new_list) return;
      changes->push_back({path, absl::StrCat(old_list.size(), " entries"),
                          absl::StrCat(new_list.size(), " entries"), field.reload});
      return;
    }
    case FieldKind::kStruct:
      Diff(*field.table, field.nested(Mutable(before)), field.nested(Mutable(after)), path,
           changes);
      return;
    case FieldKind::kStructList: {
      const size_t old_size = field.list.size(before);
      const size_t new_size = field.list.size(after);
      if (old_size != new_size) {
        changes->push_back({path, absl::StrCat(old_size, " entries"),
                            absl::StrCat(new_size, " entries"), field.reload});
      }
      for (size_t i = 0; i < std::min(old_size, new_size); ++i) {
        Diff(*field.table, field.list.at(Mutable(before), i), field.list.at(Mutable(after), i),
             ItemPath(path, i), changes);
      }
      return;
    }
  }
}

void Diff(const StructTable& table, const void* before, const void* after, absl::string_view path,
          std::vector<Change>* changes) {
  for (const Field& field : table.fields) {
    DiffField(field, before, after, Join(path, field.key), changes);
  }
}

void Describe(const StructTable& table, void* defaults, absl::string_view path, std::string* page) {
  for (const Field& field : table.fields) {
    const std::string field_path = Join(path, field.key);
    if (field.kind == FieldKind::kStruct) {
      Describe(*field.table, field.nested(defaults), field_path, page);
      continue;
    }
    std::string initial = "empty";
    if (field.kind == FieldKind::kScalar) {
      initial = field.render(defaults);
      initial = field.is_optional && initial == "null"
                    ? "unset"
                    : absl::StrCat("`", YamlScalar(initial), "`");
    }
    absl::StrAppend(page, "| `", field_path, "` | ", field.type, field.range.empty() ? "" : ": ",
                    field.range, " | ", initial, " | ",
                    field.reload == Reload::kLive ? "live" : "restart", " | ", field.doc, " |\n");
    if (field.kind == FieldKind::kStructList) {
      if (field.list.size(defaults) == 0) field.list.resize(defaults, 1);
      Describe(*field.table, field.list.at(defaults, 0), field_path + "[]", page);
    }
  }
}

// The child of `node` for `key`, made if absent; nullptr, with a problem, if there can be none.
Node* Descend(const Override& value, const std::string& key, Node* node,
              std::vector<Problem>* problems) {
  const auto fail = [&](absl::string_view message, absl::string_view hint) -> Node* {
    problems->push_back({value.source, {}, "", std::string(message), std::string(hint)});
    return nullptr;
  };
  if (node->kind == NodeKind::kNull) {
    node->kind = IsIndex(key) ? NodeKind::kList : NodeKind::kMap;
  }
  if (node->kind == NodeKind::kMap) {
    if (Node* child = node->Find(key)) return child;
    MapEntry entry;
    entry.key = key;
    entry.value.override_source = value.source;
    node->entries.push_back(std::move(entry));
    return &node->entries.back().value;
  }
  if (node->kind == NodeKind::kScalar) return fail("leads into a plain value", "check the name");
  size_t index = 0;
  if (!IsIndex(key) || !absl::SimpleAtoi(key, &index)) {
    return fail(absl::StrCat(Quoted(key), " must be a number: the list's entry"), "");
  }
  if (index > node->items.size()) {
    return fail(absl::StrCat("names entry ", index, " of a list with ", node->items.size()),
                absl::StrCat("the next new entry is ", node->items.size()));
  }
  if (index == node->items.size()) {
    node->items.emplace_back();
    node->items.back().override_source = value.source;
  }
  return &node->items[index];
}

}  // namespace

Origin NearestOrigin(const Origins& origins, absl::string_view path) {
  std::string at(path);
  while (true) {
    const auto found = origins.find(at);
    if (found != origins.end()) return found->second;
    const size_t cut = at.find_last_of(".[");
    if (cut == std::string::npos) return {};
    at.resize(cut);
  }
}

std::vector<std::string> SplitPath(absl::string_view path) {
  const std::string dotted = absl::StrReplaceAll(path, {{"[", "."}, {"]", ""}});
  return absl::StrSplit(dotted, '.');
}

void ApplyOverride(const Override& value, Node* root, std::vector<Problem>* problems) {
  if (value.keys.size() > static_cast<size_t>(kMaxDepth)) {
    problems->push_back({value.source, {}, "", "names no setting: too many parts", ""});
    return;
  }
  Node* node = root;
  for (const std::string& key : value.keys) {
    node = Descend(value, key, node, problems);
    if (node == nullptr) return;
  }
  *node = Node();
  node->kind = NodeKind::kScalar;
  node->text = value.text;
  node->override_source = value.source;
}

std::string DumpYaml(const StructTable& table, const void* owner, const Origins& origins) {
  Dumper dumper(origins);
  dumper.Struct(table, owner, "", 0);
  return dumper.Take();
}

std::vector<Change> DiffStructs(const StructTable& table, const void* before, const void* after) {
  std::vector<Change> changes;
  Diff(table, before, after, "", &changes);
  return changes;
}

std::string ReferencePage(const StructTable& table, void* defaults) {
  std::string page =
      "| setting | values | default | takes effect | meaning |\n|---|---|---|---|---|\n";
  Describe(table, defaults, "", &page);
  return page;
}

}  // namespace tessera
