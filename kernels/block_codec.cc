#include "kernels/block_codec.h"

#include <bit>

namespace tessera::kernels {
namespace {

uint16_t Read16(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}

uint32_t Byte(const std::byte* bytes, uint32_t i) { return static_cast<uint32_t>(bytes[i]); }

void ReadSixBitsAndMinima(const std::byte* bytes, SubValues& values) {
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t scale = Byte(bytes, i);
    const uint32_t minimum = Byte(bytes, i + 4);
    const uint32_t low = Byte(bytes, i + 8);
    values.scales[i] = static_cast<int16_t>(scale & 63);
    values.minima[i] = static_cast<uint8_t>(minimum & 63);
    values.scales[i + 4] = static_cast<int16_t>((low & 15) | scale >> 6 << 4);
    values.minima[i + 4] = static_cast<uint8_t>(low >> 4 | minimum >> 6 << 4);
  }
}

void WriteSixBitsAndMinima(const SubValues& values, std::byte* bytes) {
  for (uint32_t i = 0; i < 4; ++i) {
    const auto scale = static_cast<uint32_t>(values.scales[i + 4]);
    const uint32_t minimum = values.minima[i + 4];
    bytes[i] = static_cast<std::byte>(static_cast<uint32_t>(values.scales[i]) | scale >> 4 << 6);
    bytes[i + 4] = static_cast<std::byte>(values.minima[i] | minimum >> 4 << 6);
    bytes[i + 8] = static_cast<std::byte>((scale & 15) | (minimum & 15) << 4);
  }
}

float BlockScale(const BlockFormat& format, const std::byte* block) {
  if (format.scale_bytes == 2) return F16ToF32(Read16(block + format.scale_at));
  // 2^(e - 128): below 2 it has no exponent of its own.
  const uint32_t e = Byte(block, format.scale_at);
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
}

template <DType kType>
void DecodeBlock(const std::byte* block, float* values) {
  constexpr BlockFormat kFormat = BlockFormatOf(kType);
  constexpr uint32_t kSub = kFormat.sub_elements;
  const float d = BlockScale(kFormat, block);
  const float m = kFormat.has_min() ? F16ToF32(Read16(block + kFormat.min_at)) : 0.0f;
  SubValues sub;
  ReadSubScales(kFormat.sub_scales, block + kFormat.sub_at, sub);
  for (uint32_t s = 0; s < kFormat.elements / kSub; ++s) {
    constexpr bool kInteger = kFormat.sub_scales != SubScales::kNone;
    const float scale = kInteger ? d * static_cast<float>(sub.scales[s]) : d;
    const float minimum = kInteger ? -(m * static_cast<float>(sub.minima[s])) : m;
    for (uint32_t step = s * kSub / 4; step < (s + 1) * kSub / 4; ++step) {
      uint32_t codes = StepCodes(kFormat.low, block, step);
      if constexpr (kFormat.high.bits != 0) {
        codes |= StepCodes(kFormat.high, block, step) << kFormat.low.bits;
      }
      if constexpr (kType == DType::kQ8_0) codes ^= 0x80808080u;
      for (uint32_t i = 0; i < 4; ++i) {
        uint32_t stored = codes >> (8 * i) & 255;
        if constexpr (kFormat.table != nullptr) stored = kFormat.table[stored];
        const int value = static_cast<int>(stored) - kFormat.zero;
        const float product = scale * static_cast<float>(value);
        values[step * 4 + i] = kFormat.has_min() ? product + minimum : product;
      }
    }
  }
}

}  // namespace

void ReadSubScales(SubScales kind, const std::byte* bytes, SubValues& values) {
  switch (kind) {
    case SubScales::kNone:
      return;
    case SubScales::kNibblePairs:
      for (uint32_t i = 0; i < 16; ++i) {
        values.scales[i] = static_cast<int16_t>(Byte(bytes, i) & 15);
        values.minima[i] = static_cast<uint8_t>(Byte(bytes, i) >> 4);
      }
      return;
    case SubScales::kSixBits:
      for (uint32_t i = 0; i < 16; ++i) {
        const uint32_t low = Byte(bytes, i % 8) >> (i / 8 * 4) & 15;
        const uint32_t high = Byte(bytes, 8 + i % 4) >> (i / 4 * 2) & 3;
        values.scales[i] = static_cast<int16_t>(static_cast<int>(low | high << 4) - 32);
      }
      return;
    case SubScales::kSixBitsAndMinima:
      return ReadSixBitsAndMinima(bytes, values);
    case SubScales::kInt8:
      for (uint32_t i = 0; i < 16; ++i) values.scales[i] = static_cast<int8_t>(bytes[i]);
      return;
    case SubScales::kSixBitsApart:
      for (uint32_t i = 0; i < 8; ++i) {
        const uint32_t high = static_cast<uint32_t>(Read16(bytes)) >> (i * 2) & 3;
        const uint32_t low = Byte(bytes, 2 + i / 2) >> (i % 2 * 4) & 15;
        values.scales[i] = static_cast<int16_t>(static_cast<int>(low | high << 4) - 32);
      }
      return;
  }
}

void WriteSubScales(SubScales kind, const SubValues& values, std::byte* bytes) {
  const auto six = [&](uint32_t i) { return static_cast<uint32_t>(values.scales[i] + 32); };
  switch (kind) {
    case SubScales::kNone:
      return;
    case SubScales::kNibblePairs:
      for (uint32_t i = 0; i < 16; ++i) {
        bytes[i] = static_cast<std::byte>(values.scales[i] | values.minima[i] << 4);
      }
      return;
    case SubScales::kSixBits:
      std::memset(bytes, 0, 12);
      for (uint32_t i = 0; i < 16; ++i) {
        bytes[i % 8] |= static_cast<std::byte>((six(i) & 15) << (i / 8 * 4));
        bytes[8 + i % 4] |= static_cast<std::byte>(six(i) >> 4 << (i / 4 * 2));
      }
      return;
    case SubScales::kSixBitsAndMinima:
      return WriteSixBitsAndMinima(values, bytes);
    case SubScales::kInt8:
      for (uint32_t i = 0; i < 16; ++i) {
        bytes[i] = static_cast<std::byte>(static_cast<int8_t>(values.scales[i]));
      }
      return;
    case SubScales::kSixBitsApart:
      std::memset(bytes, 0, 6);
      for (uint32_t i = 0; i < 8; ++i) {
        bytes[i / 4] |= static_cast<std::byte>(six(i) >> 4 << (i % 4 * 2));
        bytes[2 + i / 2] |= static_cast<std::byte>((six(i) & 15) << (i % 2 * 4));
      }
      return;
  }
}

void DecodeBlocks(DType dtype, uint64_t in, const std::byte* blocks, float* values) {
  WithBlockType(dtype, [&]<DType kType>() {
    constexpr BlockFormat kFormat = BlockFormatOf(kType);
    for (uint64_t k = 0; k < in; k += kFormat.elements, blocks += kFormat.bytes) {
      DecodeBlock<kType>(blocks, values + k);
    }
  });
}

}  // namespace tessera::kernels
