#include "blockzoo/import/tensor_forms.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/weight_planes.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;

Status Unsupported(const CheckpointTensor& tensor, absl::string_view what, absl::string_view fix) {
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat("the tensor ", tensor.name, " cannot be ", what),
                .why = absl::StrCat("its type is ", kernels::InfoOf(tensor.dtype).name),
                .fix = std::string(fix)});
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

// Bytes of one row, of a type without planes. A block must not reach over the end of a row.
StatusOr<uint64_t> RowBytesOf(const CheckpointTensor& tensor) {
  const uint64_t columns = tensor.shape.size() > 1 ? tensor.shape.back() : 1;
  const auto bytes =
      kernels::StorageBytes(tensor.dtype, RowElements(tensor.shape) / columns, columns);
  if (!bytes.has_value()) return Unsupported(tensor, "divided", "");
  return *bytes;
}

// Rows of each plane, copied side by side.
StatusOr<CheckpointTensor> TakePlaneRows(const CheckpointTensor& tensor, uint64_t begin,
                                         uint64_t count, MadeTensors& made) {
  const uint64_t rows = tensor.shape[0], columns = tensor.shape[1];
  const uint64_t grain = tensor.dtype == DType::kF8Block128 ? 128 : 1;
  if (begin % grain != 0 || (count % grain != 0 && begin + count != rows)) {
    return Unsupported(tensor, absl::StrCat("cut before row ", begin, " or after it"),
                       "import the unquantized model");
  }
  const kernels::WeightPlanes from = kernels::PlanesOf(tensor.dtype, rows, columns);
  const kernels::WeightPlanes to = kernels::PlanesOf(tensor.dtype, count, columns);
  std::byte* out = nullptr;
  CheckpointTensor part = made.Add(RangeName(tensor, begin, begin + count), tensor.dtype,
                                   {count, columns}, to.bytes, &out);
  // A plane holds one line for each `grain` rows.
  const auto copy = [&](uint64_t source, uint64_t target, uint64_t bytes, uint64_t lines) {
    const uint64_t line = bytes / ((count + lines - 1) / lines);
    std::memcpy(out + target, tensor.bytes.data() + source + begin / lines * line, bytes);
  };
  copy(0, 0, to.codes_bytes, 1);
  copy(from.scales_offset, to.scales_offset, to.scales_bytes, grain);
  if (to.zeros_bytes > 0) copy(from.zeros_offset, to.zeros_offset, to.zeros_bytes, 1);
  return part;
}

float ElementOf(const CheckpointTensor& tensor, uint64_t index) {
  if (tensor.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, tensor.bytes.data() + index * sizeof(value), sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, tensor.bytes.data() + index * sizeof(bits), sizeof(bits));
  return tensor.dtype == DType::kF16 ? kernels::F16ToF32(bits) : kernels::BF16ToF32(bits);
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

}  // namespace

CheckpointTensor MadeTensors::Add(std::string name, DType dtype, Shape shape, uint64_t bytes,
                                  std::byte** out) {
  bytes_.push_back(std::make_shared<std::byte[]>(bytes));
  *out = bytes_.back().get();
  return {std::move(name), dtype, std::move(shape), {*out, bytes}};
}

StatusOr<CheckpointTensor> TakeRows(const CheckpointTensor& tensor, uint64_t begin, uint64_t count,
                                    MadeTensors& made) {
  if (kernels::HasPlanes(tensor.dtype)) return TakePlaneRows(tensor, begin, count, made);
  TESSERA_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytesOf(tensor));
  CheckpointTensor part = tensor;
  part.name = RangeName(tensor, begin, begin + count);
  part.shape[0] = count;
  part.bytes = tensor.bytes.subspan(begin * row_bytes, count * row_bytes);
  return part;
}

StatusOr<CheckpointTensor> TakePeriodicRows(const CheckpointTensor& tensor, uint64_t period,
                                            uint64_t begin, uint64_t count, MadeTensors& made) {
  if (kernels::HasPlanes(tensor.dtype)) {
    return Unsupported(tensor, "divided by heads", "import the unquantized model");
  }
  TESSERA_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytesOf(tensor));
  const uint64_t periods = tensor.shape[0] / period;
  Shape shape = tensor.shape;
  shape[0] = periods * count;
  std::byte* out = nullptr;
  CheckpointTensor part =
      made.Add(absl::StrCat(RangeName(tensor, begin, begin + count), " of each ", period),
               tensor.dtype, std::move(shape), periods * count * row_bytes, &out);
  for (uint64_t i = 0; i < periods; ++i) {
    std::memcpy(out + i * count * row_bytes, tensor.bytes.data() + (i * period + begin) * row_bytes,
                count * row_bytes);
  }
  return part;
}

StatusOr<CheckpointTensor> Transposed(const CheckpointTensor& tensor, MadeTensors& made) {
  if (!kernels::IsFloatType(tensor.dtype)) {
    return Unsupported(tensor, "transposed", "import the unquantized model");
  }
  const uint64_t rows = tensor.shape[0], columns = tensor.shape[1];
  std::byte* out = nullptr;
  CheckpointTensor turned = made.Add(tensor.name + " transposed", tensor.dtype, {columns, rows},
                                     tensor.bytes.size(), &out);
  if (tensor.dtype == DType::kF32) {
    TransposeElements<float>(tensor.bytes.data(), out, rows, columns);
  } else {
    TransposeElements<uint16_t>(tensor.bytes.data(), out, rows, columns);
  }
  return turned;
}

StatusOr<CheckpointTensor> PlusOne(const CheckpointTensor& tensor, MadeTensors& made) {
  if (!kernels::IsFloatType(tensor.dtype)) return Unsupported(tensor, "shifted", "");
  const uint64_t elements = tensor.shape[0] * RowElements(tensor.shape);
  std::byte* out = nullptr;
  CheckpointTensor shifted = made.Add(tensor.name + " plus one", DType::kF32, tensor.shape,
                                      elements * sizeof(float), &out);
  for (uint64_t i = 0; i < elements && !tensor.bytes.empty(); ++i) {
    const float value = 1.0f + ElementOf(tensor, i);
    std::memcpy(out + i * sizeof(value), &value, sizeof(value));
  }
  return shifted;
}

StatusOr<CheckpointTensor> Stacked(const std::string& name,
                                   const std::vector<CheckpointTensor>& tensors,
                                   MadeTensors& made) {
  const CheckpointTensor& first = tensors.front();
  uint64_t rows = 0, bytes = 0;
  for (const CheckpointTensor& tensor : tensors) {
    if (kernels::HasPlanes(tensor.dtype)) {
      return Unsupported(tensor, "stacked", "import the unquantized model");
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
    bytes += tensor.bytes.size();
  }
  Shape shape = first.shape;
  shape[0] = rows;
  std::byte* out = nullptr;
  CheckpointTensor stack = made.Add(name, first.dtype, std::move(shape), bytes, &out);
  for (const CheckpointTensor& tensor : tensors) {
    std::memcpy(out, tensor.bytes.data(), tensor.bytes.size());
    out += tensor.bytes.size();
  }
  return stack;
}

}  // namespace tessera::blockzoo
