#include <cstring>

#include "kernels/cuda/linear/skinny_int4.h"

namespace tessera::kernels::cuda {
namespace {

struct Shape {
  uint32_t out, in, group;
  bool has_zeros;
};

Shape ShapeOf(DType dtype, uint32_t out, uint32_t in) {
  return {out, in, ScaleGroup(dtype), dtype == DType::kI4G128Zero || dtype == DType::kI4G64Zero};
}

Int4Record RecordAt(const Shape& shape, uint32_t row) {
  const uint32_t panel = row / kInt4PanelRows * kInt4PanelRows;
  return Int4RecordOf(Int4PanelRows(shape.out, panel), shape.group, shape.has_zeros);
}

// Calls code(canonical byte, canonical shift, packed byte, packed shift) for every code of `row`.
template <typename Code>
void ForCodes(const Shape& shape, uint32_t row, const Int4Record& record, Code code) {
  for (uint32_t k = 0; k < shape.in; ++k) {
    const Int4Place place = Int4PlaceOf(row, k, record);
    code((uint64_t{row} * shape.in + k) / 2, k % 2 * 4,
         Int4RecordOffset(row, k, shape.in, record) + place.byte, place.shift);
  }
}

// Calls group(canonical index, packed offset of the scale, packed offset of the zero point) for
// every group of `row`.
template <typename Group>
void ForGroups(const Shape& shape, uint32_t row, const Int4Record& record, Group group) {
  const uint32_t groups = shape.in / shape.group;
  for (uint32_t g = 0; g < groups; ++g) {
    const uint32_t column = g * shape.group;
    const uint64_t start = Int4RecordOffset(row, column, shape.in, record);
    const uint32_t index =
        column % kInt4RecordColumns / shape.group * record.rows + row % kInt4PanelRows;
    group(uint64_t{row} * groups + g, start + record.scales + index * 2,
          start + record.zeros + index);
  }
}

}  // namespace

uint64_t PackedInt4Bytes(DType dtype, uint64_t out, uint64_t in) {
  const Shape shape = ShapeOf(dtype, static_cast<uint32_t>(out), static_cast<uint32_t>(in));
  const uint64_t row_bytes = Int4RecordOf(16, shape.group, shape.has_zeros).bytes / 16;
  return (out + 15) / 16 * 16 * ((in + 127) / 128) * row_bytes;
}

void PackInt4(DType dtype, uint32_t out, uint32_t in, const std::byte* canonical,
              std::byte* packed) {
  const Shape shape = ShapeOf(dtype, out, in);
  const WeightPlanes planes = PlanesOf(dtype, out, in);
  std::memset(packed, 0, PackedInt4Bytes(dtype, out, in));
  for (uint32_t row = 0; row < out; ++row) {
    const Int4Record record = RecordAt(shape, row);
    ForCodes(shape, row, record,
             [&](uint64_t from, uint32_t from_shift, uint64_t to, uint32_t to_shift) {
               packed[to] |= (canonical[from] >> from_shift & std::byte{15}) << to_shift;
             });
    ForGroups(shape, row, record, [&](uint64_t index, uint64_t scale, uint64_t zero) {
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
    const Int4Record record = RecordAt(shape, row);
    ForCodes(shape, row, record,
             [&](uint64_t to, uint32_t to_shift, uint64_t from, uint32_t from_shift) {
               canonical[to] |= (packed[from] >> from_shift & std::byte{15}) << to_shift;
             });
    ForGroups(shape, row, record, [&](uint64_t index, uint64_t scale, uint64_t zero) {
      std::memcpy(canonical + planes.scales_offset + index * 2, packed + scale, 2);
      if (shape.has_zeros) canonical[planes.zeros_offset + index] = packed[zero];
    });
  }
}

}  // namespace tessera::kernels::cuda
