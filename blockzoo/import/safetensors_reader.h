// The safetensors container: a JSON header, then the tensors' bytes without gaps.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "blockzoo/import/checkpoint.h"

namespace tessera::blockzoo {

// The limit of the format's specification.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// A tensor as the file holds it, of any type that the format has for whole bytes.
struct SafetensorsTensor {
  std::string name;
  std::string type;  // "F32", "F8_E4M3", "I32", …
  Shape shape;       // a scalar's is [1]
  std::span<const std::byte> bytes;
};

// INVALID_ARGUMENT when the file breaks the format: a header beyond the file or the limit,
// duplicate names, bytes that overlap, leave gaps, end outside the file or do not match the shape.
// UNIMPLEMENTED naming the tensor and the type when the format does not have the type, or not in
// whole bytes. Sorted by name. The result views `file`.
[[nodiscard]] StatusOr<std::vector<SafetensorsTensor>> ParseSafetensors(
    std::span<const std::byte> file);

// The tensor as a weight: UNIMPLEMENTED naming both when its type is not F32, F16 or BF16,
// INVALID_ARGUMENT when no weight has its shape.
[[nodiscard]] StatusOr<CheckpointTensor> AsWeight(const SafetensorsTensor& tensor);

}  // namespace tessera::blockzoo
