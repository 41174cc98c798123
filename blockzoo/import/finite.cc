#include "blockzoo/import/finite.h"

#include <algorithm>
#include <cstring>

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

// Elements whose exponent bits are all ones. Most tensors have none, so the elements of a run are
// looked at together first: in a loop of known length and one type, which becomes vectors.
template <typename Bits>
std::optional<uint64_t> FirstWithExponent(std::span<const std::byte> bytes, Bits exponent) {
  constexpr uint64_t kRun = 1024;
  const uint64_t count = bytes.size() / sizeof(Bits);
  Bits run[kRun] = {};
  for (uint64_t begin = 0; begin < count; begin += kRun) {
    const uint64_t length = std::min(kRun, count - begin);
    std::memcpy(run, bytes.data() + begin * sizeof(Bits), length * sizeof(Bits));
    // What a last, shorter run leaves of the run before it has no such element.
    Bits found = 0;
    for (uint64_t i = 0; i < kRun; ++i) found |= static_cast<Bits>((run[i] & exponent) == exponent);
    if (found == 0) continue;
    for (uint64_t i = 0; i < length; ++i) {
      if ((run[i] & exponent) == exponent) return (begin + i) * sizeof(Bits);
    }
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
