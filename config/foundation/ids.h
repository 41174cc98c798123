// Strong integer ids: a PageId cannot be passed where a SequenceId is wanted.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>

namespace tessera {

template <typename Tag, typename Value = uint32_t>
struct StrongId {
  static constexpr Value kInvalid = std::numeric_limits<Value>::max();
  Value value = kInvalid;

  constexpr StrongId() = default;
  constexpr explicit StrongId(Value v) : value(v) {}
  [[nodiscard]] constexpr bool valid() const { return value != kInvalid; }
  constexpr auto operator<=>(const StrongId&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, StrongId id) {
    return H::combine(std::move(h), id.value);
  }
};

using PageId = StrongId<struct PageTag, uint32_t>;
using SequenceId = StrongId<struct SequenceTag, uint64_t>;
using RequestId = StrongId<struct RequestTag, uint64_t>;
using ChainId = StrongId<struct ChainTag, uint32_t>;
using TokenId = uint32_t;

}  // namespace tessera

template <typename Tag, typename Value>
struct std::hash<tessera::StrongId<Tag, Value>> {
  size_t operator()(tessera::StrongId<Tag, Value> id) const noexcept {
    return std::hash<Value>()(id.value);
  }
};
