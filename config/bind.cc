// Reading a tree into a struct by its field table.
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "config/foundation/text.h"
#include "config/nearest.h"
#include "config/schema.h"

namespace tessera {
namespace {

absl::string_view KindName(NodeKind kind) {
  switch (kind) {
    case NodeKind::kNull:
      return "nothing";
    case NodeKind::kScalar:
      return "a plain value";
    case NodeKind::kList:
      return "a list";
    case NodeKind::kMap:
      return "a group of settings";
  }
  return "";
}

// All paths of settings under `table`, without indices.
void CollectPaths(const StructTable& table, const std::string& prefix,
                  std::vector<std::string>* paths) {
  for (const Field& field : table.fields) {
    const std::string path = prefix.empty() ? field.key : absl::StrCat(prefix, ".", field.key);
    if (field.table == nullptr) {
      paths->push_back(path);
    } else {
      CollectPaths(*field.table, field.kind == FieldKind::kStructList ? path + "[]" : path, paths);
    }
  }
}

class Binder {
 public:
  Binder(const StructTable& root, absl::string_view file, std::vector<Problem>* problems,
         Origins* origins)
      : file_(file), problems_(problems), origins_(origins) {
    CollectPaths(root, "", &paths_);
  }

  void Struct(const StructTable& table, const Node& node, void* owner, const std::string& path) {
    if (node.kind == NodeKind::kNull) return;
    if (node.kind != NodeKind::kMap) {
      Fail(node, path, absl::StrCat("must be a group of settings, not ", KindName(node.kind)), "");
      return;
    }
    for (const MapEntry& entry : node.entries) {
      const Field* field = Lookup(table, entry.key);
      if (field == nullptr) {
        Unknown(table, entry, path);
        continue;
      }
      const std::string field_path =
          path.empty() ? field->key : absl::StrCat(path, ".", field->key);
      Record(field_path, entry.value, entry.position);
      Value(*field, entry.value, owner, field_path);
    }
  }

 private:
  static const Field* Lookup(const StructTable& table, absl::string_view key) {
    for (const Field& field : table.fields) {
      if (field.key == key) return &field;
    }
    return nullptr;
  }

  [[nodiscard]] std::string SourceOf(const Node& node) const {
    return node.override_source.empty() ? std::string(file_) : node.override_source;
  }

  void Record(const std::string& path, const Node& node, Position fallback) {
    (*origins_)[path] = {SourceOf(node), node.position.line > 0 ? node.position : fallback};
  }

  void Fail(const Node& node, const std::string& path, absl::string_view message,
            absl::string_view hint) {
    if (problems_->size() >= kMaxProblems) return;
    problems_->push_back(
        {SourceOf(node), node.position, path, std::string(message), std::string(hint)});
  }

  void Unknown(const StructTable& table, const MapEntry& entry, const std::string& path) {
    if (problems_->size() >= kMaxProblems) return;
    std::vector<std::string> keys;
    for (const Field& field : table.fields) keys.push_back(field.key);
    const std::string nearest = NearestName(entry.key, keys);
    std::string hint;
    if (!nearest.empty()) {
      hint = absl::StrCat("did you mean `", nearest, "`?");
    } else if (const std::string elsewhere = Elsewhere(entry.key); !elsewhere.empty()) {
      hint = absl::StrCat("did you mean `", elsewhere, "`?");
    } else {
      hint = "--print-config shows all settings";
    }
    problems_->push_back({SourceOf(entry.value), entry.position, path,
                          absl::StrCat("unknown setting ", Quoted(entry.key, 64)), hint});
  }

  // The path of a setting that has this very name in another group.
  [[nodiscard]] std::string Elsewhere(absl::string_view key) const {
    for (const std::string& path : paths_) {
      const size_t dot = path.rfind('.');
      if (dot != std::string::npos && absl::string_view(path).substr(dot + 1) == key) return path;
    }
    return "";
  }

  void Value(const Field& field, const Node& node, void* owner, const std::string& path) {
    switch (field.kind) {
      case FieldKind::kScalar:
        return Scalar(field, node, owner, path);
      case FieldKind::kTextList:
        return TextList(field, node, owner, path);
      case FieldKind::kStruct:
        return Struct(*field.table, node, field.nested(owner), path);
      case FieldKind::kStructList:
        return StructList(field, node, owner, path);
    }
  }

  void Scalar(const Field& field, const Node& node, void* owner, const std::string& path) {
    const bool null_word = !node.override_source.empty() && node.text == "null";
    if (field.is_optional && (node.kind == NodeKind::kNull || null_word)) return field.unset(owner);
    if (node.kind == NodeKind::kNull) {
      Fail(node, path, "has no value",
           field.is_text ? "give one, or leave the line out; \"\" is empty text"
                         : "give one, or leave the line out");
      return;
    }
    if (node.kind != NodeKind::kScalar) {
      Fail(node, path, absl::StrCat("must be a plain value, not ", KindName(node.kind)), "");
      return;
    }
    const Status status = field.parse(node.text, owner);
    if (status.ok()) return;
    std::string hint = field.range.empty() ? "" : absl::StrCat("values: ", field.range);
    if (status.message().find(field.range) != absl::string_view::npos) hint.clear();
    Fail(node, path, absl::StrCat(status.message(), ", not ", Quoted(node.text, 64)), hint);
  }

  void TextList(const Field& field, const Node& node, void* owner, const std::string& path) {
    std::vector<std::string> values;
    if (node.kind == NodeKind::kScalar && !node.override_source.empty()) {
      values = absl::StrSplit(node.text, ',', absl::SkipEmpty());
    } else if (node.kind == NodeKind::kList) {
      for (const Node& item : node.items) {
        if (item.kind != NodeKind::kScalar) {
          Fail(item, path, absl::StrCat("must hold text, not ", KindName(item.kind)), "");
          return;
        }
        values.push_back(item.text);
      }
    } else if (node.kind != NodeKind::kNull) {
      Fail(node, path, absl::StrCat("must be a list, not ", KindName(node.kind)),
           "write it as [a, b]");
      return;
    }
    *field.text_list(owner) = std::move(values);
  }

  void StructList(const Field& field, const Node& node, void* owner, const std::string& path) {
    if (node.kind != NodeKind::kNull && node.kind != NodeKind::kList) {
      Fail(node, path, absl::StrCat("must be a list, not ", KindName(node.kind)),
           "begin each entry with `- `");
      return;
    }
    constexpr size_t kMaxEntries = 4096;
    if (node.items.size() > kMaxEntries) {
      Fail(node, path, absl::StrCat("has more than ", kMaxEntries, " entries"), "");
      return;
    }
    field.list.resize(owner, node.items.size());
    for (size_t i = 0; i < node.items.size(); ++i) {
      const std::string item_path = absl::StrCat(path, "[", i, "]");
      Record(item_path, node.items[i], node.position);
      Struct(*field.table, node.items[i], field.list.at(owner, i), item_path);
    }
  }

  absl::string_view file_;
  std::vector<Problem>* problems_;
  Origins* origins_;
  std::vector<std::string> paths_;
};

}  // namespace

void BindTree(const StructTable& table, const Node& node, absl::string_view file, void* owner,
              std::vector<Problem>* problems, Origins* origins) {
  Binder(table, file, problems, origins).Struct(table, node, owner, "");
}

}  // namespace tessera
