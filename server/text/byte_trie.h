// A trie over bytes: which of many texts begin at a place.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace tessera::server {

// Nodes are numbers from kRoot on. Immutable once filled; thread-safe then.
class ByteTrie {
 public:
  static constexpr uint32_t kRoot = 0;
  static constexpr uint32_t kNone = UINT32_MAX;

  ByteTrie() { first_.fill(kNone); }

  // Gives `text` (not empty) the value; of equal texts the last counts.
  void Insert(absl::string_view text, uint32_t value) {
    uint32_t node = kRoot;
    for (const char c : text) {
      const uint8_t byte = static_cast<uint8_t>(c);
      uint32_t& next =
          node == kRoot ? first_[byte] : edges_.try_emplace(Edge(node, byte), kNone).first->second;
      if (next == kNone) {
        next = static_cast<uint32_t>(values_.size());
        values_.push_back(kNone);
      }
      node = next;
    }
    values_[node] = value;
  }
  // The node behind `node` by one more byte; kNone when no text goes on so.
  [[nodiscard]] uint32_t Step(uint32_t node, char byte) const {
    if (node == kRoot) return first_[static_cast<uint8_t>(byte)];
    const auto it = edges_.find(Edge(node, static_cast<uint8_t>(byte)));
    return it == edges_.end() ? kNone : it->second;
  }
  // The node of `text`; kNone when no text begins so.
  [[nodiscard]] uint32_t Walk(absl::string_view text) const {
    uint32_t node = kRoot;
    for (size_t i = 0; i < text.size() && node != kNone; ++i) node = Step(node, text[i]);
    return node;
  }
  struct Found {
    size_t length = 0;  // 0 when no text is found
    uint32_t value = kNone;
  };
  // The longest of the texts that `text` begins with.
  [[nodiscard]] Found Longest(absl::string_view text) const {
    Found found;
    uint32_t node = kRoot;
    for (size_t i = 0; i < text.size(); ++i) {
      node = Step(node, text[i]);
      if (node == kNone) break;
      if (values_[node] != kNone) found = {i + 1, values_[node]};
    }
    return found;
  }
  // The value of the text that ends at `node`; kNone when none does.
  [[nodiscard]] uint32_t value(uint32_t node) const { return values_[node]; }

 private:
  static uint64_t Edge(uint32_t node, uint8_t byte) { return uint64_t{node} << 8 | byte; }

  std::array<uint32_t, 256> first_;
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  std::vector<uint32_t> values_{kNone};
};

}  // namespace tessera::server
