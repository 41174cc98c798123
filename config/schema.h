// What follows from a field table: reading a tree into a struct, showing, comparing and describing
// one.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/field.h"
#include "config/problem.h"
#include "config/tree.h"

namespace tessera {

// Where a value comes from. `source` is the file's name, `env NAME` or `flag KEY`.
struct Origin {
  std::string source;
  Position position;
};

// By path (`models[0].name`). A path that is absent has its default.
using Origins = std::map<std::string, Origin>;

// The last known place of `path` or of what encloses it; empty if there is none.
[[nodiscard]] Origin NearestOrigin(const Origins& origins, absl::string_view path);

// A value given outside the file. `keys` leads to it: names, and numbers for entries of a list.
struct Override {
  std::string source;  // `env NAME` or `flag KEY`
  std::vector<std::string> keys;
  std::string text;
};

// "a.b[0].c" or "a.b.0.c" as keys.
[[nodiscard]] std::vector<std::string> SplitPath(absl::string_view path);

// Puts the value into the tree, in place of what is there. An entry of a list may be replaced or,
// one past the end, appended.
void ApplyOverride(const Override& value, Node* root, std::vector<Problem>* problems);

// Reads `node` into `owner`, which holds the defaults. Adds every problem found, up to
// `kMaxProblems`; what is in order is read nevertheless.
void BindTree(const StructTable& table, const Node& node, absl::string_view file, void* owner,
              std::vector<Problem>* problems, Origins* origins);

// The effective values as YAML, each with its origin in a comment. Reading it back gives the same.
[[nodiscard]] std::string DumpYaml(const StructTable& table, const void* owner,
                                   const Origins& origins);

struct Change {
  std::string field;
  std::string before;
  std::string after;
  Reload reload = Reload::kRestart;
};

// The fields whose values differ, in the table's order.
[[nodiscard]] std::vector<Change> DiffStructs(const StructTable& table, const void* before,
                                              const void* after);

// A markdown table of every setting. `defaults` is a struct with the defaults; its empty lists get
// one entry each, whose defaults are shown.
[[nodiscard]] std::string ReferencePage(const StructTable& table, void* defaults);

}  // namespace tessera
