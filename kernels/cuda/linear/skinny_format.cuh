// How each weight type lies in a slot of the ring, and how its codes become bfloat16 fragments. A
// slot holds two blocks of 64 rows. Formats with kRegisters convert: Load reads a lane's codes of
// one block and half of 64 columns (rows g and g + 8 of its warp's 16, g = lane / 4), Convert makes
// fragments of mma.m16n8k16 for a pair of steps of 16 columns (two pairs a half), and LoadColumns
// the fragments of eight tokens that go with them. Which column of the half is which of a step is
// the format's choice. Products of a warpgroup read x where it lies, so that LoadSteps and
// ConvertSteps, their pair, give lane t of a quad the columns 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 of
// each of the half's four steps.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/linear/skinny_int4.h"
#include "kernels/cuda/linear/skinny_plan.h"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {

enum class SkinnyScale { kNone, kChannel, kBlock, kGroup };

// d = a with bytes chosen by nibbles of `selector`; bit 3 of a nibble repeats the byte's sign.
__device__ __forceinline__ uint32_t PermuteBytes(uint32_t a, uint32_t selector) {
  uint32_t d;
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(d) : "r"(a), "r"(selector));
  return d;
}
// (a & mask) | bits in one instruction: the compiler splits it where both are immediates.
__device__ __forceinline__ uint32_t MaskOr(uint32_t a, uint32_t mask, uint32_t bits) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
  return d;
}
// (a & mask) ^ bits, the same.
__device__ __forceinline__ uint32_t MaskXor(uint32_t a, uint32_t mask, uint32_t bits) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
  return d;
}
__device__ __forceinline__ __nv_bfloat162 AsBf162(uint32_t bits) {
  return *reinterpret_cast<const __nv_bfloat162*>(&bits);
}
__device__ __forceinline__ uint32_t AsBits(__nv_bfloat162 pair) {
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Fragments of eight tokens from 64 columns of x with the 128-byte swizzle, where lane t's columns
// are 16 t ... 16 t + 15, four a step.
__device__ __forceinline__ void LoadLaneColumns(const uint8_t* input, int first_token, int pair,
                                                int lane, uint32_t (&b)[2][2]) {
  const int token = lane >> 2, chunk = 2 * (lane & 3) + pair;
  const uint8_t* from = input + (first_token + token) * 128 + (chunk ^ token) * 16;
  const uint4 v = *reinterpret_cast<const uint4*>(from);
  b[0][0] = v.x;
  b[0][1] = v.y;
  b[1][0] = v.z;
  b[1][1] = v.w;
}

// Fragments of the row operand of four steps of 16 columns.
using SkinnyFragments = uint32_t[4][4];

// What the kernel of few rows multiplies.
enum class SkinnyNumbers : uint8_t {
  kBf16,
  kF16,     // codes and x, which is less a power of two
  kDigits,  // codes as they are and two 8-bit digits of x, in integers
};

// Four columns of a word of int4 codes, as they lie in its bytes; of other bytes.
inline constexpr uint32_t kInt4Order = 0x3120, kByteOrder = 0x3210;

struct SkinnyBf16 {
  static constexpr DType kDType = DType::kBF16;
  static constexpr bool kCoded = false;  // whether x is codes, too
  static constexpr int kHalves = 1;      // runs of x in a unit, of 128 bytes a row
  static constexpr SkinnyNumbers kNumbers = SkinnyNumbers::kBf16;
  static constexpr bool kStarts = false;  // whether integer sums begin with anything
  static constexpr bool kRegisters = false;
  static constexpr bool kPacked = false;
  static constexpr SkinnyScale kScale = SkinnyScale::kNone;
  static constexpr uint32_t kRecordBytes = 2048;             // of 16 rows of a unit
  static constexpr uint32_t kBlockBytes = 4 * kRecordBytes;  // of a slot's block of 64 rows
  // Sixteen columns of rows g and g + 8.
  struct Codes {
    uint4 row[2][2];
  };
  // Row of the weight that is row g (0..7) of a fragment's eight.
  static __device__ __forceinline__ uint32_t RowOf(uint32_t g) { return g; }
  static __device__ __forceinline__ Codes Load(const uint8_t* block, int /*half*/, int warp,
                                               int lane) {
    const uint32_t row = lane >> 2, chunk = 2 * (lane & 3);
    const uint8_t* from = block + (warp * 16 + row) * 128;
    Codes codes;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        codes.row[r][i] =
            *reinterpret_cast<const uint4*>(from + r * 1024 + ((chunk + i) ^ row) * 16);
      }
    }
    return codes;
  }
  static __device__ __forceinline__ void Convert(const Codes& codes, int pair,
                                                 uint32_t (&a)[2][4]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint4& v = codes.row[r][pair];
      a[0][r] = v.x;
      a[0][r + 2] = v.y;
      a[1][r] = v.z;
      a[1][r + 2] = v.w;
    }
  }
};

// Types of one byte a code, in rows of 128 bytes with the 128-byte swizzle. Lanes of a quarter warp
// have the rows g and g ^ 4 so that their 16-byte reads meet all banks.
struct SkinnyByteCodes {
  static constexpr bool kCoded = false;
  static constexpr int kHalves = 2;
  static constexpr bool kStarts = false;
  static constexpr bool kRegisters = true;
  static constexpr bool kPacked = false;
  static constexpr uint32_t kRecordBytes = 2048;
  static constexpr uint32_t kBlockBytes = 4 * kRecordBytes;

  struct Codes {
    uint4 row[2];
  };
  static __device__ __forceinline__ uint32_t RowOf(uint32_t g) { return g >> 1 | (g & 1) << 2; }
  // `block`: the block's first byte; `warp`: of the warpgroup.
  static __device__ __forceinline__ Codes Load(const uint8_t* block, int half, int warp, int lane) {
    const uint32_t row = RowOf(lane >> 2);
    const uint32_t chunk = (half * 4 + (lane & 3)) ^ row;
    const uint8_t* from = block + (warp * 16 + row) * 128 + chunk * 16;
    return {*reinterpret_cast<const uint4*>(from), *reinterpret_cast<const uint4*>(from + 1024)};
  }
  static __device__ __forceinline__ void LoadColumns(const uint8_t* input, int first_token,
                                                     int pair, int lane, uint32_t (&b)[2][2]) {
    LoadLaneColumns(input, first_token, pair, lane, b);
  }
  // Two codes each, in the fragments' places. The rows of one read lie in different banks, whatever
  // their order.
  struct StepCodes {
    uint16_t pair[4][4];
  };
  static __device__ __forceinline__ StepCodes LoadSteps(const uint8_t* block, int half, int warp,
                                                        int lane) {
    const uint32_t row = RowOf(lane >> 2);
    const uint32_t first = (warp * 16 + row) * 128 + row * 16 + (lane & 3) * 2;
    StepCodes codes;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const uint8_t* from = block + (first ^ (half * 4 + step) * 16);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        codes.pair[step][i] =
            *reinterpret_cast<const uint16_t*>(from + (i & 1) * 1024 + (i >> 1) * 8);
      }
    }
    return codes;
  }
  template <typename Pair>
  static __device__ __forceinline__ void ConvertPairs(const StepCodes& codes, SkinnyFragments& a) {
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[step][i] = Pair::Low(codes.pair[step][i]);
    }
  }
  // Fragments by Pair::Low and Pair::High: the first and the last two codes of a word.
  template <typename Pair>
  static __device__ __forceinline__ void ConvertWords(const Codes& codes, int pair,
                                                      uint32_t (&a)[2][4]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint4& v = codes.row[r];
      const uint32_t words[2] = {pair == 0 ? v.x : v.z, pair == 0 ? v.y : v.w};
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        a[step][r] = Pair::Low(words[step]);
        a[step][r + 2] = Pair::High(words[step]);
      }
    }
  }
};

struct SkinnyF8 : SkinnyByteCodes {
  static constexpr SkinnyNumbers kNumbers = SkinnyNumbers::kF16;
  // A code's exponent and mantissa, shifted into bfloat16's, give its value times 2^-120, also for
  // subnormal codes.
  static __device__ __forceinline__ uint32_t Scale(uint32_t spread) {
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(spread) >> 4) & 0x87f087f0u;
    return AsBits(__hmul2(AsBf162(bits), AsBf162(0x7b807b80u)));
  }
  static __device__ __forceinline__ uint32_t Low(uint32_t word) {
    return Scale(PermuteBytes(word, 0x1804));
  }
  static __device__ __forceinline__ uint32_t High(uint32_t word) {
    return Scale(PermuteBytes(word, 0x3a24));
  }
  static __device__ __forceinline__ void Convert(const Codes& codes, int pair,
                                                 uint32_t (&a)[2][4]) {
    ConvertWords<SkinnyF8>(codes, pair, a);
  }
  static __device__ __forceinline__ void ConvertSteps(const StepCodes& codes, SkinnyFragments& a) {
    ConvertPairs<SkinnyF8>(codes, a);
  }
  struct Halves {
    static __device__ __forceinline__ uint32_t Of(uint16_t pair) {
      uint32_t d;
      asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(d) : "h"(pair));
      return d;
    }
    static __device__ __forceinline__ uint32_t Low(uint32_t word) {
      return Of(static_cast<uint16_t>(word));
    }
    static __device__ __forceinline__ uint32_t High(uint32_t word) {
      return Of(static_cast<uint16_t>(word >> 16));
    }
  };
  // The same in float16, which knows what is not a number.
  static __device__ __forceinline__ void ConvertHalves(const Codes& codes, int pair,
                                                       uint32_t (&a)[2][4]) {
    ConvertWords<Halves>(codes, pair, a);
  }
};
struct SkinnyF8Channel : SkinnyF8 {
  static constexpr DType kDType = DType::kF8Channel;
  static constexpr SkinnyScale kScale = SkinnyScale::kChannel;
};
struct SkinnyF8Block : SkinnyF8 {
  static constexpr DType kDType = DType::kF8Block128;
  static constexpr SkinnyScale kScale = SkinnyScale::kBlock;
};

// e4m3 times e4m3, both from shared memory: of the formats of tiles alone.
struct SkinnyF8Coded {
  static constexpr DType kDType = DType::kF8Channel;
  static constexpr bool kCoded = true;
  static constexpr int kHalves = 1;
  static constexpr bool kRegisters = false;
  static constexpr bool kPacked = false;
  static constexpr SkinnyScale kScale = SkinnyScale::kChannel;
  static constexpr uint32_t kRecordBytes = 2048;
  static constexpr uint32_t kBlockBytes = 4 * kRecordBytes;
  struct Codes {};  // none pass through registers
  static __device__ __forceinline__ uint32_t RowOf(uint32_t g) { return g; }
};

struct SkinnyI8 : SkinnyByteCodes {
  static constexpr SkinnyNumbers kNumbers = SkinnyNumbers::kDigits;
  static constexpr uint32_t kOrder = kByteOrder;  // of the columns in a word of digits
  static constexpr float kProducts = 1.0f;        // what the sums have, of a product
  static constexpr DType kDType = DType::kI8Channel;
  static constexpr SkinnyScale kScale = SkinnyScale::kChannel;
  // 128 + the low seven bits, less 128 or, for negative codes, 256: both exact.
  static __device__ __forceinline__ uint32_t Subtract(uint32_t spread) {
    const uint32_t low = MaskOr(spread, 0x007f007fu, 0x43004300u);
    const uint32_t bias = MaskOr(spread, 0x00800080u, 0x43004300u);
    return AsBits(__hsub2(AsBf162(low), AsBf162(bias)));
  }
  static __device__ __forceinline__ uint32_t Low(uint32_t word) {
    return Subtract(PermuteBytes(word, 0x4140));
  }
  static __device__ __forceinline__ uint32_t High(uint32_t word) {
    return Subtract(PermuteBytes(word, 0x4342));
  }
  static __device__ __forceinline__ void Convert(const Codes& codes, int pair,
                                                 uint32_t (&a)[2][4]) {
    ConvertWords<SkinnyI8>(codes, pair, a);
  }
  static __device__ __forceinline__ void ConvertSteps(const StepCodes& codes, SkinnyFragments& a) {
    ConvertPairs<SkinnyI8>(codes, a);
  }
  // Adds the products of a lane's 16 columns with their digits, in two chains.
  static __device__ __forceinline__ void MultiplyDigits(const Codes& codes,
                                                        const uint32_t (&digits)[4],
                                                        int (&sums)[2][4]) {
    const uint4 &v = codes.row[0], &w = codes.row[1];
    MmaS8(sums[0], {v.x, w.x, v.y, w.y}, digits[0], digits[1]);
    MmaS8(sums[1], {v.z, w.z, v.w, w.w}, digits[2], digits[3]);
  }
};

// Packed records (skinny_int4.h). To few rows a code is 16 times the code less 8, a signed byte; of
// types with zero points 16 times itself.
template <DType kType>
struct SkinnyI4 {
  static constexpr DType kDType = kType;
  static constexpr bool kCoded = false;
  static constexpr int kHalves = 2;
  static constexpr SkinnyNumbers kNumbers = SkinnyNumbers::kDigits;
  static constexpr uint32_t kOrder = kInt4Order;
  static constexpr float kProducts = 16.0f;
  static constexpr bool kRegisters = true;
  static constexpr bool kPacked = true;
  static constexpr SkinnyScale kScale = SkinnyScale::kGroup;
  static constexpr uint32_t kGroup =
      kType == DType::kI4G64 || kType == DType::kI4G64Zero ? 64 : 128;
  static constexpr bool kZeros = kType == DType::kI4G128Zero || kType == DType::kI4G64Zero;
  static constexpr bool kStarts = kZeros;
  static constexpr Int4Record kRecord = Int4RecordOf(kGroup, kZeros);
  static constexpr uint32_t kRecordBytes = kRecord.bytes;
  static constexpr uint32_t kBlockBytes = 4 * kRecordBytes;

  struct Codes {
    uint2 row[2];
    float scale[2];
    uint32_t zero[2];
  };
  static __device__ __forceinline__ uint32_t RowOf(uint32_t g) { return g; }
  static __device__ __forceinline__ uint32_t GroupIndex(int half, uint32_t row) {
    return (kGroup == 64 ? half * kInt4RecordRows : 0) + row;
  }
  static __device__ __forceinline__ float ScaleAt(const uint8_t* record, uint32_t index) {
    return __half2float(*reinterpret_cast<const __half*>(record + kRecord.scales + index * 2));
  }
  static __device__ __forceinline__ Codes Load(const uint8_t* block, int half, int warp, int lane) {
    const uint8_t* record = block + warp * kRecordBytes;
    const uint8_t* from = record + half * 512 + lane * 8;
    Codes codes{
        {*reinterpret_cast<const uint2*>(from), *reinterpret_cast<const uint2*>(from + 256)},
        {},
        {8, 8}};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t index = GroupIndex(half, (lane >> 2) + 8 * r);
      codes.scale[r] = ScaleAt(record, index);
      if constexpr (kZeros) codes.zero[r] = record[kRecord.zeros + index];
    }
    return codes;
  }
  static __device__ __forceinline__ void MultiplyDigits(const Codes& codes,
                                                        const uint32_t (&digits)[4],
                                                        int (&sums)[2][4]) {
    const uint2 &v = codes.row[0], &w = codes.row[1];
    const auto multiply = [](uint32_t a, uint32_t b, uint32_t first, uint32_t second, int(&to)[4]) {
      if constexpr (kZeros) {
        constexpr uint32_t kHigh = 0xf0f0f0f0u;
        MmaU8(to, {a << 4 & kHigh, b << 4 & kHigh, a & kHigh, b & kHigh}, first, second);
      } else {
        MmaS8(to, {Signed(a << 4), Signed(b << 4), Signed(a), Signed(b)}, first, second);
      }
    };
    multiply(v.x, w.x, digits[0], digits[1], sums[0]);
    multiply(v.y, w.y, digits[2], digits[3], sums[1]);
  }
  // Of the codes in the high halves of the bytes.
  static __device__ __forceinline__ uint32_t Signed(uint32_t word) {
    return MaskXor(word, 0xf0f0f0f0u, 0x80808080u);
  }
  // What the sums of a group begin with, by the sum of its digits.
  static __device__ __forceinline__ int Start(const Codes& codes, int row, int digits) {
    return static_cast<int>(codes.zero[row]) * digits * -16;
  }
  // All codes of the rows: a word's pair t, which lane t masks out, is of neighbouring columns.
  struct StepCodes {
    uint4 row[2][2];
    uint32_t zero[2];  // 128 + zero point, twice, in bfloat16
    float scale[2];
  };
  static __device__ __forceinline__ StepCodes LoadSteps(const uint8_t* block, int half, int warp,
                                                        int lane) {
    const uint8_t* record = block + warp * kRecordBytes;
    const uint8_t* from = record + half * 512 + (lane >> 2) * 32;
    StepCodes codes{{}, {0x43084308u, 0x43084308u}, {0, 0}};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      codes.row[r][0] = *reinterpret_cast<const uint4*>(from + r * 256);
      codes.row[r][1] = *reinterpret_cast<const uint4*>(from + r * 256 + 16);
      const uint32_t index = GroupIndex(half, (lane >> 2) + 8 * r);
      codes.scale[r] = ScaleAt(record, index);
      if constexpr (kZeros) {
        codes.zero[r] = 0x43004300u | record[kRecord.zeros + index] * 0x00010001u;
      }
    }
    return codes;
  }
  static __device__ __forceinline__ void ConvertSteps(const StepCodes& codes, SkinnyFragments& a) {
    const int bit = Int4PlaceOf(0, (LaneId() & 3) * 2).bit;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const uint4& v = codes.row[r][step >> 1];
        a[step][r] = Decode((step & 1) == 0 ? v.x : v.z, bit, codes.zero[r]);
        a[step][r + 2] = Decode((step & 1) == 0 ? v.y : v.w, bit, codes.zero[r]);
      }
    }
  }
  // The pair of codes at `bit` and half a word further, less the zero point, in bfloat16.
  static __device__ __forceinline__ uint32_t Decode(uint32_t word, int bit, uint32_t zero) {
    const uint32_t code = MaskOr(__funnelshift_r(word, word, bit), 0x000f000fu, 0x43004300u);
    return AsBits(__hsub2(AsBf162(code), AsBf162(zero)));
  }
  static __device__ __forceinline__ void LoadColumns(const uint8_t* input, int first_token,
                                                     int pair, int lane, uint32_t (&b)[2][2]) {
    LoadLaneColumns(input, first_token, pair, lane, b);
  }
  // Of more rows that are not multiplied by warpgroups.
  static __device__ __forceinline__ void Convert(const Codes& codes, int pair,
                                                 uint32_t (&a)[2][4]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t word = pair == 0 ? codes.row[r].x : codes.row[r].y;
      const uint32_t zero = 0x43004300u | codes.zero[r] * 0x00010001u;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i >> 1][r + 2 * (i & 1)] = Decode(word, Int4PlaceOf(0, 2 * i).bit, zero);
      }
    }
  }
};

// Everything that is fixed when a kernel is compiled.
template <typename Format_, int kColumns_>
struct SkinnyTile {
  using Format = Format_;
  static constexpr SkinnyGeometry kGeometry =
      SkinnyGeometryOf(Format::kDType, Format::kCoded, kColumns_);
  static constexpr int kColumns = kColumns_;
  static constexpr int kGroups = kGeometry.groups;
  static constexpr int kThreads = 128 * (1 + kGroups);
  // Warpgroups that finish a consumer warpgroup's rows: with two of those, registers were divided.
  static constexpr int kHelpers = kGroups == 1 ? 2 : 1;
  static constexpr int kRegisters = kColumns / 2;  // accumulators a thread and block
  static constexpr bool kGrouped =
      Format::kScale == SkinnyScale::kBlock || Format::kScale == SkinnyScale::kGroup;
  // Columns of a scale, where grouped.
  static constexpr int kGroupColumns = kGrouped ? ScaleGroup(Format::kDType) : 0;
  // Whether converted weights are multiplied by whole warpgroups.
  static constexpr bool kWide = Format::kRegisters && kColumns >= 32;
  static constexpr uint32_t kSlotBytes = 2 * Format::kBlockBytes;
  static constexpr uint32_t kInputBytes = kColumns * 128;  // of a run of x
  // Wide products hold two slots from unit to unit: eight leave six under way, and cost the ring of
  // a block that has the multiprocessor for itself nothing (32 columns) or two slots of ten.
  static constexpr int kInputSlots = kColumns == 16 ? 6 : kGeometry.resident == 1 ? 8 : 4;
  // Two blocks and 2 KB that the device keeps share 228 KB.
  static constexpr uint32_t kSharedLimit = (kGeometry.resident == 2 ? 113 : 200) * 1024;
  static constexpr uint32_t kBudget = kSharedLimit - 1024;
  // Whether a block may take more than half, with another beside it.
  static constexpr bool kMayBeAlone = kGeometry.resident == 2;
  // A slot always serves the same group: a parity tells two rounds apart, not three.
  static constexpr int kSlots =
      (kBudget - kInputSlots * kInputBytes) / kSlotBytes / kGroups * kGroups;
  static_assert(kSlots >= 4 && kSlots <= 32);
  // That are on their way at a time while the ring fills for the first time. What is not converted
  // needs more of them to keep the memory busy.
  static constexpr int kFirstSlots =
      std::max<int>(2, (Format::kRegisters ? 1 : 2) * kSkinnyFirstBytes / kSlotBytes);

  // Whether no more are on their way later either: of bf16, 64 rows took 126.3 us a layer of
  // Llama-3-8B without, 124.4 with; fewer rows and other types lost or gained nothing.
  static constexpr bool kPaced = !Format::kRegisters && kColumns == 64;

  // Of a thread, where the two roles divide what a kernel of 384 threads starts with.
  static constexpr int kProducerRegisters = kGeometry.resident == 1 ? 40 : 32;
  static constexpr int kConsumerRegisters =
      (kGeometry.resident == 2 ? 240 - kProducerRegisters : 464) / 16 * 8;
};

// The block's shared memory.
template <typename Tile>
struct SkinnyShared {
  alignas(1024) uint8_t input[Tile::kInputSlots][Tile::kInputBytes];
  alignas(1024) uint8_t weights[Tile::kSlots][Tile::kSlotBytes];
  float x_scales[Tile::Format::kCoded ? Tile::kColumns : 1];  // of the rows
  uint64_t weights_full[Tile::kSlots];
  uint64_t weights_empty[Tile::kSlots];
  uint64_t input_full[Tile::kInputSlots];
  uint64_t input_empty[Tile::kInputSlots];
};

// A place in a ring of kSlots, and the parity of its current round.
template <int kSlots>
struct RingCursor {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Advance(int count = 1) {
    slot += count;
    if (slot >= kSlots) {
      slot -= kSlots;
      parity ^= 1;
    }
  }
  // The slot before.
  __device__ __forceinline__ int Last() const { return (slot == 0 ? kSlots : slot) - 1; }
};

}  // namespace tessera::kernels::cuda
