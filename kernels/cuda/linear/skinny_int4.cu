#include <bit>
#include <cstring>

#include "kernels/cuda/linear/skinny_int4.h"

namespace tessera::kernels::cuda {
namespace {

struct Shape {
  uint32_t out, in, group;
  bool has_zeros;
  Int4Record record;
};

Shape ShapeOf(DType dtype, uint32_t out, uint32_t in) {
  const bool has_zeros = dtype == DType::kI4G128Zero || dtype == DType::kI4G64Zero;
  return {out, in, ScaleGroup(dtype), has_zeros, Int4RecordOf(ScaleGroup(dtype), has_zeros)};
}

uint64_t RecordOffset(const Shape& shape, uint32_t row, uint32_t column) {
  return Int4RecordOffset(row, column, shape.out, shape.in, shape.record.bytes);
}

// Calls word(first code of the row in canonical order, packed offset) for every word of `row`: in
// is a multiple of eight.
template <typename Word>
void ForWords(const Shape& shape, uint32_t row, Word word) {
  for (uint32_t k = 0; k < shape.in; k += 8) {
    word(uint64_t{row} * shape.in + k, RecordOffset(shape, row, k) + Int4PlaceOf(row, k).byte);
  }
}
int BitOf(uint32_t column) { return static_cast<int>(Int4PlaceOf(0, column).bit); }

// Calls group(canonical index, packed offset of the scale, packed offset of the zero point) for
// every group of `row`.
template <typename Group>
void ForGroups(const Shape& shape, uint32_t row, Group group) {
  const uint32_t groups = shape.in / shape.group;
  for (uint32_t g = 0; g < groups; ++g) {
    const uint32_t column = g * shape.group;
    const uint64_t start = RecordOffset(shape, row, column);
    const uint32_t index =
        column % kInt4RecordColumns / shape.group * kInt4RecordRows + row % kInt4RecordRows;
    group(uint64_t{row} * groups + g, start + shape.record.scales + index * 2,
          start + shape.record.zeros + index);
  }
}

}  // namespace

uint64_t PackedInt4Bytes(DType dtype, uint64_t out, uint64_t in) {
  const Shape shape = ShapeOf(dtype, static_cast<uint32_t>(out), static_cast<uint32_t>(in));
  return (out + 15) / 16 * ((in + 127) / 128) * shape.record.bytes;
}

void PackInt4(DType dtype, uint32_t out, uint32_t in, const std::byte* canonical,
              std::byte* packed) {
  const Shape shape = ShapeOf(dtype, out, in);
  const WeightPlanes planes = PlanesOf(dtype, out, in);
  std::memset(packed, 0, PackedInt4Bytes(dtype, out, in));
  for (uint32_t row = 0; row < out; ++row) {
    ForWords(shape, row, [&](uint64_t from, uint64_t to) {
      uint32_t codes, word = 0;
      std::memcpy(&codes, canonical + from / 2, sizeof(codes));
      for (uint32_t k = 0; k < 8; ++k) word |= std::rotl(codes >> (4 * k) & 15u, BitOf(k));
      std::memcpy(packed + to, &word, sizeof(word));
    });
    ForGroups(shape, row, [&](uint64_t index, uint64_t scale, uint64_t zero) {
      std::memcpy(packed + scale, canonical + planes.scales_offset + index * 2, 2);
      if (shape.has_zeros) packed[zero] = canonical[planes.zeros_offset + index];
    });
  }
}

void UnpackInt4(DType dtype, uint32_t out, uint32_t in, const std::byte* packed,
                std::byte* canonical) {
  const Shape shape = ShapeOf(dtype, out, in);
  const WeightPlanes planes = PlanesOf(dtype, out, in);
  std::memset(canonical, 0, planes.bytes);
  for (uint32_t row = 0; row < out; ++row) {
    ForWords(shape, row, [&](uint64_t to, uint64_t from) {
      uint32_t word, codes = 0;
      std::memcpy(&word, packed + from, sizeof(word));
      for (uint32_t k = 0; k < 8; ++k) codes |= (std::rotr(word, BitOf(k)) & 15u) << (4 * k);
      std::memcpy(canonical + to / 2, &codes, sizeof(codes));
    });
    ForGroups(shape, row, [&](uint64_t index, uint64_t scale, uint64_t zero) {
      std::memcpy(canonical + planes.scales_offset + index * 2, packed + scale, 2);
      if (shape.has_zeros) canonical[planes.zeros_offset + index] = packed[zero];
    });
  }
}

}  // namespace tessera::kernels::cuda
