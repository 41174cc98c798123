#include "blockzoo/import/finite.h"

#include <cstring>
#include <limits>

#include "absl/strings/string_view.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;

// Floats of a block: two of float16 at most, or a byte that is a power of two (0xff: not a number).
struct BlockFloats {
  absl::string_view type;
  int half[2] = {-1, -1};
  int power = -1;
};
constexpr BlockFloats kBlockFloats[] = {
    {"Q8_0", {0, -1}},      {"Q4_0", {0, -1}},   {"Q4_1", {0, 2}},    {"Q5_0", {0, -1}},
    {"Q5_1", {0, 2}},       {"Q2_K", {80, 82}},  {"Q3_K", {108, -1}}, {"Q4_K", {0, 2}},
    {"Q5_K", {0, 2}},       {"Q6_K", {208, -1}}, {"IQ4_NL", {0, -1}}, {"IQ4_XS", {0, -1}},
    {"MXFP4", {-1, -1}, 0},
};

// The first element whose exponent bits are all ones. Most tensors have none, so the elements of a
// word are looked at together first: in a lane of `rest` (its sign bit is clear) only 0 does not
// carry into the sign bit.
template <typename Bits>
std::optional<uint64_t> FirstWithExponent(std::span<const std::byte> bytes, Bits exponent) {
  constexpr Bits kAll = std::numeric_limits<Bits>::max();
  constexpr uint64_t kLanes = std::numeric_limits<uint64_t>::max() / kAll;
  constexpr uint64_t kSigns = kLanes * (kAll / 2 + 1);
  constexpr uint64_t kCarry = kLanes * (kAll / 2);
  const uint64_t exponents = kLanes * exponent;
  uint64_t at = 0;
  for (; at + sizeof(uint64_t) <= bytes.size(); at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + at, sizeof(word));
    const uint64_t rest = (word & exponents) ^ exponents;
    if ((~(rest + kCarry) & kSigns) != 0) break;
  }
  for (; at + sizeof(Bits) <= bytes.size(); at += sizeof(Bits)) {
    Bits element;
    std::memcpy(&element, bytes.data() + at, sizeof(element));
    if ((element & exponent) == exponent) return at;
  }
  return std::nullopt;
}

std::optional<uint64_t> FirstInBlocks(const BlockFloats& floats, uint64_t block_bytes,
                                      std::span<const std::byte> bytes) {
  for (uint64_t block = 0; block + block_bytes <= bytes.size(); block += block_bytes) {
    for (const int offset : floats.half) {
      if (offset < 0) continue;
      uint16_t bits;
      std::memcpy(&bits, bytes.data() + block + offset, sizeof(bits));
      if ((bits & 0x7c00) == 0x7c00) return block + static_cast<uint64_t>(offset);
    }
    if (floats.power >= 0 && bytes[block + static_cast<uint64_t>(floats.power)] == std::byte{255}) {
      return block + static_cast<uint64_t>(floats.power);
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<uint64_t> FirstNotFinite(DType dtype, std::span<const std::byte> bytes) {
  if (dtype == DType::kF32) return FirstWithExponent<uint32_t>(bytes, 0x7f800000);
  if (dtype == DType::kF16) return FirstWithExponent<uint16_t>(bytes, 0x7c00);
  if (dtype == DType::kBF16) return FirstWithExponent<uint16_t>(bytes, 0x7f80);
  const kernels::DTypeInfo& info = kernels::InfoOf(dtype);
  for (const BlockFloats& floats : kBlockFloats) {
    if (floats.type == info.name) return FirstInBlocks(floats, info.block_bytes, bytes);
  }
  return std::nullopt;
}

}  // namespace tessera::blockzoo
