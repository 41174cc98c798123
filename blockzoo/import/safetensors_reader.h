// The safetensors container: a JSON header, then the tensors' bytes without gaps.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "blockzoo/import/checkpoint.h"

namespace tessera::blockzoo {

// The limit of the format's specification.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// INVALID_ARGUMENT when the file breaks the format: a header beyond the file or the limit,
// duplicate names, bytes that overlap, leave gaps, end outside the file or do not match the shape.
// UNIMPLEMENTED naming the tensor and the type when an element type is not supported. A scalar gets
// the shape [1]. The result views `file`.
[[nodiscard]] StatusOr<std::vector<CheckpointTensor>> ParseSafetensors(
    std::span<const std::byte> file);

}  // namespace tessera::blockzoo
