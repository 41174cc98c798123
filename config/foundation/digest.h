// SHA-256: the identity of tensors, blocks, chains and state.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera {

// 32 bytes of SHA-256. Ordered and hashable (its first bytes are already uniform).
struct Digest {
  std::array<uint8_t, 32> bytes{};

  auto operator<=>(const Digest&) const = default;

  // 64 lower-case hexadecimal characters.
  [[nodiscard]] std::string Hex() const;
  // The first 12 characters of `Hex()`, for people.
  [[nodiscard]] std::string Short() const;
  // INVALID_ARGUMENT unless `hex` is 64 hexadecimal characters.
  [[nodiscard]] static StatusOr<Digest> FromHex(absl::string_view hex);

  template <typename H>
  friend H AbslHashValue(H h, const Digest& d) {
    uint64_t first;
    std::memcpy(&first, d.bytes.data(), sizeof(first));
    return H::combine(std::move(h), first);
  }
};

// Incremental SHA-256. Integers are added little-endian; `AddText` adds the length first, so that a
// sequence of fields cannot be read as another sequence. One thread at a time.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  Hasher& AddBytes(std::span<const uint8_t> bytes);
  Hasher& AddText(absl::string_view text);
  Hasher& AddU64(uint64_t value);
  Hasher& AddDigest(const Digest& digest);
  // Returns the digest and starts anew.
  [[nodiscard]] Digest Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tessera

template <>
struct std::hash<tessera::Digest> {
  size_t operator()(const tessera::Digest& d) const noexcept {
    size_t first;
    std::memcpy(&first, d.bytes.data(), sizeof(first));
    return first;
  }
};
