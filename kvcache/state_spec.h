// What a block keeps for a sequence, declared to the cache before anything is allocated.
#pragma once

#include <cstdint>
#include <vector>

#include "config/foundation/digest.h"
#include "config/foundation/status.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kvcache {

enum class StateKind : uint8_t {
  kPaged,  // planes in pages of 64 tokens, truncatable
};

// One table of pages a sequence: the state of one head group of one block.
struct StateSpec {
  StateKind kind = StateKind::kPaged;
  kernels::KvFormat format;

  bool operator==(const StateSpec&) const = default;
};

// A table of a chain: its spec and the digest that decides with whom its pages may be shared.
struct TableSpec {
  StateSpec state;
  Digest state_digest;
};

// The tables of a chain in block order. Immutable; shared by the chain's sequences.
struct CacheLayout {
  std::vector<TableSpec> tables;

  // Bytes of pages that `tokens` tokens of one sequence take in all tables; UINT64_MAX when more.
  [[nodiscard]] uint64_t BytesFor(uint64_t tokens) const;
  // INVALID_ARGUMENT unless every table's pages have a size and no two tables have one state
  // digest.
  [[nodiscard]] Status Validate() const;
};

}  // namespace tessera::kvcache
