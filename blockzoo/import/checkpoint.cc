#include "blockzoo/import/checkpoint.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/weight_planes.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;
using kernels::WeightPlanes;

Status BadRows(const CheckpointTensor& tensor, uint64_t begin, uint64_t count) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("the tensor ", tensor.name, " has no rows [", begin, ", ",
                                     begin + count, ")"),
                .why = absl::StrCat("its shape is ", ShapeText(tensor.shape))});
}

// Copies `bytes / rows` bytes of each row [begin, begin + count) of a plane.
void CopyRows(const std::byte* from, uint64_t plane_bytes, uint64_t rows, uint64_t begin,
              uint64_t count, std::byte* to) {
  const uint64_t row_bytes = plane_bytes / rows;
  std::copy_n(from + begin * row_bytes, count * row_bytes, to);
}

// The planes of some rows, out of the planes of all.
void CopyPlanes(DType dtype, const Shape& whole, uint64_t begin, uint64_t count,
                const std::byte* from, std::byte* to) {
  const WeightPlanes all = kernels::PlanesOf(dtype, whole[0], whole[1]);
  const WeightPlanes some = kernels::PlanesOf(dtype, count, whole[1]);
  CopyRows(from, all.codes_bytes, whole[0], begin, count, to);
  const uint64_t shared = dtype == DType::kF8Block128 ? 128 : 1;
  CopyRows(from + all.scales_offset, all.scales_bytes, (whole[0] + shared - 1) / shared,
           begin / shared, (count + shared - 1) / shared, to + some.scales_offset);
  if (all.zeros_bytes != 0) {
    CopyRows(from + all.zeros_offset, all.zeros_bytes, whole[0], begin, count,
             to + some.zeros_offset);
  }
}

}  // namespace

StatusOr<CheckpointTensor> RowsOf(const CheckpointTensor& tensor, std::string name, uint64_t begin,
                                  uint64_t count) {
  if (tensor.shape.size() < 2 || begin > tensor.shape[0] || count > tensor.shape[0] - begin ||
      count == 0) {
    return BadRows(tensor, begin, count);
  }
  CheckpointTensor rows{.name = std::move(name), .dtype = tensor.dtype, .shape = tensor.shape};
  rows.shape[0] = count;
  TESSERA_ASSIGN_OR_RETURN(const uint64_t whole_bytes, TensorBytes(tensor.dtype, tensor.shape));
  if (!kernels::HasPlanes(tensor.dtype)) {
    const uint64_t row_bytes = whole_bytes / tensor.shape[0];
    if (!tensor.make) {
      rows.bytes = tensor.bytes.subspan(begin * row_bytes, count * row_bytes);
      return rows;
    }
    rows.make = [tensor, whole_bytes, offset = begin * row_bytes](std::span<std::byte> canonical) {
      std::vector<std::byte> whole(whole_bytes);
      TESSERA_RETURN_IF_ERROR(tensor.make(whole));
      std::copy_n(whole.data() + offset, canonical.size(), canonical.data());
      return absl::OkStatus();
    };
    return rows;
  }
  if (tensor.dtype == DType::kF8Block128 && begin % 128 != 0) {
    return Error(absl::StatusCode::kUnimplemented,
                 {.what = absl::StrCat("the tensor ", tensor.name, " cannot be cut at row ", begin),
                  .why = "its scales belong to 128 rows each",
                  .fix = "import the model's unquantized form and use `tessera zoo quantize`"});
  }
  rows.make = [tensor, whole_bytes, begin, count](std::span<std::byte> canonical) {
    std::vector<std::byte> whole(tensor.make ? whole_bytes : 0);
    if (tensor.make) TESSERA_RETURN_IF_ERROR(tensor.make(whole));
    CopyPlanes(tensor.dtype, tensor.shape, begin, count,
               tensor.make ? whole.data() : tensor.bytes.data(), canonical.data());
    return absl::OkStatus();
  };
  // Codes are rows of whole bytes, wherever the rows begin.
  const uint64_t code_bytes =
      kernels::PlanesOf(tensor.dtype, tensor.shape[0], tensor.shape[1]).codes_bytes /
      tensor.shape[0];
  for (const CheckpointTensor::Origin& origin : tensor.origins) {
    const bool codes = origin.offset == 0 && origin.arrangement.empty() &&
                       origin.file_bytes.size() == code_bytes * tensor.shape[0];
    if (codes) {
      rows.origins.push_back({origin.file_bytes.subspan(begin * code_bytes, count * code_bytes)});
    }
  }
  return rows;
}

}  // namespace tessera::blockzoo
