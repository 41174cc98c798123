// What a settings text says before anything is known of its meaning: maps, lists and scalars, each
// with its place. A scalar is text without a type, for the type comes from the field that reads it;
// so YAML and JSON of the same content give the same tree.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/problem.h"

namespace tessera {

enum class NodeKind { kNull, kScalar, kList, kMap };

enum class TextFormat { kYaml, kJson };

struct MapEntry;

struct Node {
  NodeKind kind = NodeKind::kNull;
  Position position;
  std::string text;               // kScalar
  std::vector<Node> items;        // kList
  std::vector<MapEntry> entries;  // kMap, in the text's order, keys unique
  // `env NAME` or `flag KEY` for a value that an override put here; empty for the file.
  std::string override_source;

  Node();
  Node(const Node&);
  Node(Node&&) noexcept;
  Node& operator=(const Node&);
  Node& operator=(Node&&) noexcept;
  ~Node();

  // The value of `key`, or nullptr.
  [[nodiscard]] const Node* Find(absl::string_view key) const;
  [[nodiscard]] Node* Find(absl::string_view key);
  // Equal content, whatever the places.
  [[nodiscard]] bool SameContent(const Node& other) const;
};

struct MapEntry {
  std::string key;
  Position position;
  Node value;
};

// Limits of both readers. A settings file is small; what exceeds these is not one.
inline constexpr size_t kMaxTextBytes = 1 << 20;
inline constexpr int kMaxDepth = 32;

// Checks what both readers ask of a text before parsing it: size, UTF-8, no control characters but
// tab and line ends. Adds a problem and returns false otherwise.
[[nodiscard]] bool CheckText(absl::string_view text, absl::string_view file,
                             std::vector<Problem>* problems);

// Reads `text` as `format`. Nothing, with at least one problem added, if it cannot be read.
[[nodiscard]] std::optional<Node> ReadTree(absl::string_view text, TextFormat format,
                                           absl::string_view file, std::vector<Problem>* problems);

// kJson for a name that ends in `.json`, kYaml otherwise.
[[nodiscard]] TextFormat FormatOfName(absl::string_view file);

}  // namespace tessera
