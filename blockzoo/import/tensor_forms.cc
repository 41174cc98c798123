#include "blockzoo/import/tensor_forms.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/weight_planes.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;
using Bytes = std::span<const std::byte>;

Status Unsupported(const CheckpointTensor& tensor, absl::string_view what) {
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat("the tensor ", tensor.name, " cannot be ", what),
                .why = absl::StrCat("its type is ", kernels::InfoOf(tensor.dtype).name),
                .fix = "import the model's unquantized form and use `tessera zoo quantize`"});
}

std::string RangeName(const CheckpointTensor& tensor, uint64_t begin, uint64_t end) {
  return absl::StrCat(tensor.name, "[", begin, ":", end, "]");
}

// Elements of one row; a vector's rows are its elements.
uint64_t RowElements(const Shape& shape) {
  uint64_t elements = 1;
  for (size_t i = 1; i < shape.size(); ++i) elements *= shape[i];
  return elements;
}

// Calls `use` with the canonical bytes.
Status WithBytes(const CheckpointTensor& tensor, const std::function<void(Bytes)>& use) {
  if (!tensor.make) {
    use(tensor.bytes);
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(const std::vector<std::byte> made, BytesOf(tensor));
  use(made);
  return absl::OkStatus();
}

// A tensor that `fill` makes of the canonical bytes of `from`.
CheckpointTensor MadeFrom(const CheckpointTensor& from, std::string name, DType dtype, Shape shape,
                          std::function<void(Bytes, std::span<std::byte>)> fill) {
  CheckpointTensor made{.name = std::move(name), .dtype = dtype, .shape = std::move(shape)};
  made.make = [from, fill = std::move(fill)](std::span<std::byte> canonical) {
    return WithBytes(from, [&](Bytes bytes) { fill(bytes, canonical); });
  };
  return made;
}

float ElementOf(DType dtype, Bytes bytes, uint64_t index) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, bytes.data() + index * sizeof(value), sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes.data() + index * sizeof(bits), sizeof(bits));
  return dtype == DType::kF16 ? kernels::F16ToF32(bits) : kernels::BF16ToF32(bits);
}

template <typename T>
void TransposeElements(const std::byte* in, std::byte* out, uint64_t rows, uint64_t columns) {
  // By squares that stay in the cache.
  constexpr uint64_t kSquare = 32;
  for (uint64_t r = 0; r < rows; r += kSquare) {
    for (uint64_t c = 0; c < columns; c += kSquare) {
      for (uint64_t i = r; i < std::min(rows, r + kSquare); ++i) {
        for (uint64_t j = c; j < std::min(columns, c + kSquare); ++j) {
          std::memcpy(out + (j * rows + i) * sizeof(T), in + (i * columns + j) * sizeof(T),
                      sizeof(T));
        }
      }
    }
  }
}

// Of elements of 1, 2 or 4 bytes.
void Transpose(const std::byte* in, std::byte* out, uint64_t rows, uint64_t columns,
               uint64_t element_bytes) {
  if (element_bytes == 4) return TransposeElements<uint32_t>(in, out, rows, columns);
  if (element_bytes == 2) return TransposeElements<uint16_t>(in, out, rows, columns);
  TransposeElements<uint8_t>(in, out, rows, columns);
}

// Rows whose scales lie in one line.
uint64_t SharedRows(DType dtype) { return dtype == DType::kF8Block128 ? 128 : 1; }

// Whether cuts at multiples of `grains` leave together what shares a scale.
bool KeepsScalesWhole(DType dtype, std::initializer_list<uint64_t> grains) {
  return std::all_of(grains.begin(), grains.end(),
                     [dtype](uint64_t grain) { return grain % SharedRows(dtype) == 0; });
}

struct Plane {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// Calls visit(plane of a tensor of shape `from`, of one of shape `to`, rows that share its lines);
// a type without planes is one plane of `bytes` bytes.
template <typename Visit>
void ForEachPlane(DType dtype, const Shape& from, const Shape& to, uint64_t bytes, Visit visit) {
  if (!kernels::HasPlanes(dtype)) return visit(Plane{0, bytes}, Plane{}, 1);
  const kernels::WeightPlanes in = kernels::PlanesOf(dtype, from[0], from[1]);
  const kernels::WeightPlanes out = kernels::PlanesOf(dtype, to[0], to[1]);
  visit(Plane{0, in.codes_bytes}, Plane{}, 1);
  visit(Plane{in.scales_offset, in.scales_bytes}, Plane{out.scales_offset}, SharedRows(dtype));
  if (in.zeros_bytes == 0) return;
  visit(Plane{in.zeros_offset, in.zeros_bytes}, Plane{out.zeros_offset}, 1);
}

// Appends the planes of `part` rows, which begin at row `at` of `rows`.
void CopyPlanes(DType dtype, uint64_t rows, uint64_t at, uint64_t part, uint64_t columns,
                const std::byte* from, std::byte* to) {
  const kernels::WeightPlanes whole = kernels::PlanesOf(dtype, rows, columns);
  const kernels::WeightPlanes some = kernels::PlanesOf(dtype, part, columns);
  const uint64_t shared = SharedRows(dtype);
  const uint64_t line = some.scales_bytes / ((part + shared - 1) / shared);
  std::memcpy(to + at * (some.codes_bytes / part), from, some.codes_bytes);
  std::memcpy(to + whole.scales_offset + at / shared * line, from + some.scales_offset,
              some.scales_bytes);
  if (some.zeros_bytes == 0) return;
  std::memcpy(to + whole.zeros_offset + at * (some.zeros_bytes / part), from + some.zeros_offset,
              some.zeros_bytes);
}

Status FillStack(const std::vector<CheckpointTensor>& tensors, uint64_t rows,
                 std::span<std::byte> canonical) {
  uint64_t at_row = 0, at_byte = 0;
  for (const CheckpointTensor& tensor : tensors) {
    TESSERA_RETURN_IF_ERROR(WithBytes(tensor, [&](Bytes bytes) {
      if (kernels::HasPlanes(tensor.dtype)) {
        CopyPlanes(tensor.dtype, rows, at_row, tensor.shape[0], tensor.shape[1], bytes.data(),
                   canonical.data());
        return;
      }
      std::memcpy(canonical.data() + at_byte, bytes.data(), bytes.size());
      at_byte += bytes.size();
    }));
    at_row += tensor.shape[0];
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<std::vector<std::byte>> BytesOf(const CheckpointTensor& tensor) {
  if (!tensor.make) return std::vector<std::byte>(tensor.bytes.begin(), tensor.bytes.end());
  TESSERA_ASSIGN_OR_RETURN(const uint64_t size, TensorBytes(tensor.dtype, tensor.shape));
  std::vector<std::byte> made(size);
  TESSERA_RETURN_IF_ERROR(tensor.make(made));
  return made;
}

StatusOr<CheckpointTensor> TakeRows(const CheckpointTensor& tensor, uint64_t begin,
                                    uint64_t count) {
  if (tensor.shape.size() > 1) {
    return RowsOf(tensor, RangeName(tensor, begin, begin + count), begin, count);
  }
  CheckpointTensor part = tensor;
  part.name = RangeName(tensor, begin, begin + count);
  part.shape = {count};
  const uint64_t element = kernels::InfoOf(tensor.dtype).block_bytes;
  if (!tensor.make) {
    part.bytes = tensor.bytes.subspan(begin * element, count * element);
    return part;
  }
  return MadeFrom(tensor, part.name, tensor.dtype, part.shape,
                  [offset = begin * element](Bytes from, std::span<std::byte> to) {
                    std::memcpy(to.data(), from.data() + offset, to.size());
                  });
}

StatusOr<CheckpointTensor> TakePeriodicRows(const CheckpointTensor& tensor, uint64_t period,
                                            uint64_t begin, uint64_t count) {
  if (!KeepsScalesWhole(tensor.dtype, {period, begin, count})) {
    return Unsupported(tensor, "divided by heads or experts");
  }
  Shape shape = tensor.shape;
  shape[0] = tensor.shape[0] / period * count;
  return MadeFrom(
      tensor, absl::StrCat(RangeName(tensor, begin, begin + count), " of each ", period),
      tensor.dtype, shape,
      [=, dtype = tensor.dtype, whole = tensor.shape](Bytes from, std::span<std::byte> to) {
        const auto copy = [&](Plane in, Plane out, uint64_t shared) {
          const uint64_t line = in.bytes / (whole[0] / shared);
          const uint64_t lines = count / shared;
          for (uint64_t i = 0; i < whole[0] / period; ++i) {
            std::memcpy(to.data() + out.offset + i * lines * line,
                        from.data() + in.offset + (i * period + begin) / shared * line,
                        lines * line);
          }
        };
        ForEachPlane(dtype, whole, shape, from.size(), copy);
      });
}

StatusOr<CheckpointTensor> Transposed(const CheckpointTensor& tensor) {
  return TransposedPeriods(tensor, tensor.shape[0], 0, tensor.shape[0]);
}

StatusOr<CheckpointTensor> TransposedPeriods(const CheckpointTensor& tensor, uint64_t period,
                                             uint64_t begin, uint64_t count) {
  const uint64_t columns = tensor.shape[1];
  const bool blocks = tensor.dtype == DType::kF8Block128 &&
                      KeepsScalesWhole(tensor.dtype, {period, begin, count, columns});
  if (!kernels::IsFloatType(tensor.dtype) && !blocks) return Unsupported(tensor, "transposed");
  const Shape shape = {tensor.shape[0] / period * columns, count};
  return MadeFrom(
      tensor, absl::StrCat(RangeName(tensor, begin, begin + count), " transposed"), tensor.dtype,
      shape, [=, dtype = tensor.dtype, whole = tensor.shape](Bytes from, std::span<std::byte> to) {
        const auto turn = [&](Plane in, Plane out, uint64_t shared) {
          const uint64_t width = columns / shared, lines = count / shared;
          const uint64_t element = in.bytes / (whole[0] / shared * width);
          for (uint64_t i = 0; i < whole[0] / period; ++i) {
            Transpose(from.data() + in.offset + (i * period + begin) / shared * width * element,
                      to.data() + out.offset + i * lines * width * element, lines, width, element);
          }
        };
        ForEachPlane(dtype, whole, shape, from.size(), turn);
      });
}

StatusOr<CheckpointTensor> PlusOne(const CheckpointTensor& tensor) {
  if (!kernels::IsFloatType(tensor.dtype)) return Unsupported(tensor, "shifted");
  return MadeFrom(tensor, tensor.name + " plus one", DType::kF32, tensor.shape,
                  [dtype = tensor.dtype, elements = tensor.shape[0] * RowElements(tensor.shape)](
                      Bytes from, std::span<std::byte> to) {
                    for (uint64_t i = 0; i < elements; ++i) {
                      const float value = 1.0f + ElementOf(dtype, from, i);
                      std::memcpy(to.data() + i * sizeof(value), &value, sizeof(value));
                    }
                  });
}

StatusOr<CheckpointTensor> Stacked(std::string name, std::vector<CheckpointTensor> tensors) {
  const CheckpointTensor& first = tensors.front();
  uint64_t rows = 0;
  for (const CheckpointTensor& tensor : tensors) {
    if (!KeepsScalesWhole(tensor.dtype, {rows})) {
      return Unsupported(tensor, absl::StrCat("stacked from row ", rows, " on"));
    }
    if (tensor.dtype != first.dtype || tensor.shape.size() != first.shape.size() ||
        !std::equal(tensor.shape.begin() + 1, tensor.shape.end(), first.shape.begin() + 1)) {
      return Error(
          absl::StatusCode::kInvalidArgument,
          {.what = absl::StrCat("the tensor ", tensor.name, " does not go with ", first.name),
           .why = absl::StrCat(kernels::InfoOf(tensor.dtype).name, " ", ShapeText(tensor.shape),
                               " beside ", kernels::InfoOf(first.dtype).name, " ",
                               ShapeText(first.shape))});
    }
    rows += tensor.shape[0];
  }
  CheckpointTensor stack{.name = std::move(name), .dtype = first.dtype, .shape = first.shape};
  stack.shape[0] = rows;
  stack.make = [tensors = std::move(tensors), rows](std::span<std::byte> canonical) {
    return FillStack(tensors, rows, canonical);
  };
  return stack;
}

}  // namespace tessera::blockzoo
