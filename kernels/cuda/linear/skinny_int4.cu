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

// Calls code(canonical byte, canonical shift, packed byte, packed shift) for every code of `row`.
template <typename Code>
void ForCodes(const Shape& shape, uint32_t row, Code code) {
  for (uint32_t k = 0; k < shape.in; ++k) {
    const Int4Place place = Int4PlaceOf(row, k);
    code((uint64_t{row} * shape.in + k) / 2, k % 2 * 4, RecordOffset(shape, row, k) + place.byte,
         place.shift);
  }
}

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
    ForCodes(shape, row, [&](uint64_t from, uint32_t from_shift, uint64_t to, uint32_t to_shift) {
      packed[to] |= (canonical[from] >> from_shift & std::byte{15}) << to_shift;
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
    ForCodes(shape, row, [&](uint64_t to, uint32_t to_shift, uint64_t from, uint32_t from_shift) {
      canonical[to] |= (packed[from] >> from_shift & std::byte{15}) << to_shift;
    });
    ForGroups(shape, row, [&](uint64_t index, uint64_t scale, uint64_t zero) {
      std::memcpy(canonical + planes.scales_offset + index * 2, packed + scale, 2);
      if (shape.has_zeros) canonical[planes.zeros_offset + index] = packed[zero];
    });
  }
}

}  // namespace tessera::kernels::cuda
