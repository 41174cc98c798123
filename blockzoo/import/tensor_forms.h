// Tensors that no file holds as a block wants them: cut out of, transposed from or shifted from one
// that it does.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "blockzoo/import/checkpoint.h"

namespace tessera::blockzoo {

// Owns the bytes of made tensors; they are valid as long as it is. One thread.
class MadeTensors {
 public:
  // A tensor of `bytes` bytes to be filled through `out`.
  [[nodiscard]] CheckpointTensor Add(std::string name, kernels::DType dtype, Shape shape,
                                     uint64_t bytes, std::byte** out);

 private:
  std::vector<std::shared_ptr<std::byte[]>> bytes_;
};

// Rows `begin` to `begin` + `count` - 1 of a tensor of one or more dimensions, "NAME[begin:end]".
// A view where the type keeps rows whole, else a copy into `made`: no value is changed. A vector's
// rows are its elements. UNIMPLEMENTED when scales are shared across the cut.
[[nodiscard]] StatusOr<CheckpointTensor> TakeRows(const CheckpointTensor& tensor, uint64_t begin,
                                                  uint64_t count, MadeTensors& made);

// Of each `period` rows, those from `begin` to `begin` + `count` - 1, in order. UNIMPLEMENTED for
// types that keep codes and scales apart.
[[nodiscard]] StatusOr<CheckpointTensor> TakePeriodicRows(const CheckpointTensor& tensor,
                                                          uint64_t period, uint64_t begin,
                                                          uint64_t count, MadeTensors& made);

// [columns, rows] of a [rows, columns] tensor of F32, F16 or BF16, UNIMPLEMENTED for other types.
[[nodiscard]] StatusOr<CheckpointTensor> Transposed(const CheckpointTensor& tensor,
                                                    MadeTensors& made);

// 1 + each element in float32, of an F32, F16 or BF16 tensor.
[[nodiscard]] StatusOr<CheckpointTensor> PlusOne(const CheckpointTensor& tensor, MadeTensors& made);

// Tensors of one type, and of shapes that differ only in the first dimension, one after the other.
// UNIMPLEMENTED for types that keep codes and scales apart.
[[nodiscard]] StatusOr<CheckpointTensor> Stacked(const std::string& name,
                                                 const std::vector<CheckpointTensor>& tensors,
                                                 MadeTensors& made);

}  // namespace tessera::blockzoo
