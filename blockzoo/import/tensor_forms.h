// Tensors that no file holds as a block wants them: cut out of, transposed from, shifted from or
// stacked of those that it does. Where the bytes differ they are made when the importer stores them
// (CheckpointTensor::make), one tensor at a time.
#pragma once

#include <string>
#include <vector>

#include "blockzoo/import/checkpoint.h"

namespace tessera::blockzoo {

// Rows `begin` to `begin` + `count` - 1 of a tensor of one or more dimensions, "NAME[begin:end]":
// no value is changed. A vector's rows are its elements. UNIMPLEMENTED when scales are shared
// across the cut.
[[nodiscard]] StatusOr<CheckpointTensor> TakeRows(const CheckpointTensor& tensor, uint64_t begin,
                                                  uint64_t count);

// Of each `period` rows, those from `begin` to `begin` + `count` - 1, in order. UNIMPLEMENTED when
// scales are shared across a cut.
[[nodiscard]] StatusOr<CheckpointTensor> TakePeriodicRows(const CheckpointTensor& tensor,
                                                          uint64_t period, uint64_t begin,
                                                          uint64_t count);

// [columns, rows] of a [rows, columns] tensor of F32, F16, BF16, or of F8_BLOCK128 where both are
// multiples of 128; UNIMPLEMENTED otherwise.
[[nodiscard]] StatusOr<CheckpointTensor> Transposed(const CheckpointTensor& tensor);

// The rows that TakePeriodicRows takes of a [rows, columns] tensor, those of each period
// transposed: [rows / period * columns, count]. UNIMPLEMENTED as Transposed.
[[nodiscard]] StatusOr<CheckpointTensor> TransposedPeriods(const CheckpointTensor& tensor,
                                                           uint64_t period, uint64_t begin,
                                                           uint64_t count);

// 1 + each element in float32, of an F32, F16 or BF16 tensor.
[[nodiscard]] StatusOr<CheckpointTensor> PlusOne(const CheckpointTensor& tensor);

// Tensors of one type, and of shapes that differ only in the first dimension, one after the other.
// UNIMPLEMENTED when scales would be shared across a seam.
[[nodiscard]] StatusOr<CheckpointTensor> Stacked(std::string name,
                                                 std::vector<CheckpointTensor> tensors);

// The canonical bytes, made where the file keeps another form.
[[nodiscard]] StatusOr<std::vector<std::byte>> BytesOf(const CheckpointTensor& tensor);

}  // namespace tessera::blockzoo
