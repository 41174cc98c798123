// Blocks of GGUF's formats (block_format.h) taken apart and put together: canonical bytes to
// float32, and codes four at a time, which is how every layout moves them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/block_format.h"

namespace tessera::kernels {

inline constexpr uint32_t kStepElements = 4;

// The bits that `place` holds of elements 4 * step ... 4 * step + 3, one a byte, the first lowest.
[[nodiscard]] inline uint32_t StepCodes(const CodePlace& place, const std::byte* bytes,
                                        uint32_t step) {
  const uint32_t first = step * kStepElements;
  const uint32_t shift = place.Shift(first);
  if (place.run == 1 && place.bits == 1) {  // four neighbouring bits of one byte
    const uint32_t four = static_cast<uint32_t>(bytes[place.Byte(first)]) >> shift & 15;
    return four * 0x00204081u & 0x01010101u;
  }
  uint32_t word;
  std::memcpy(&word, bytes + place.Byte(first), sizeof(word));
  return word >> shift & 0x01010101u * ((1u << place.bits) - 1);
}

// Puts them where there are zeros.
inline void AddStepCodes(const CodePlace& place, std::byte* bytes, uint32_t step, uint32_t codes) {
  const uint32_t first = step * kStepElements;
  const uint32_t shift = place.Shift(first);
  std::byte* at = bytes + place.Byte(first);
  if (place.run == 1 && place.bits == 1) {
    const uint32_t four = (codes | codes >> 7 | codes >> 14 | codes >> 21) & 15;
    *at |= static_cast<std::byte>(four << shift);
    return;
  }
  uint32_t word;
  std::memcpy(&word, at, sizeof(word));
  word |= codes << shift;
  std::memcpy(at, &word, sizeof(word));
}

// Integer scales and minima of a block's sub-blocks, signed as they are multiplied.
struct SubValues {
  int16_t scales[16] = {};
  uint8_t minima[16] = {};
};
// From and to `bytes` (BlockFormat::sub_bytes of them); what is written must fit its bits.
void ReadSubScales(SubScales kind, const std::byte* bytes, SubValues& values);
void WriteSubScales(SubScales kind, const SubValues& values, std::byte* bytes);

// Blocks of `in` elements in all to float32, with llama.cpp's bits.
void DecodeBlocks(DType dtype, uint64_t in, const std::byte* blocks, float* values);

}  // namespace tessera::kernels
