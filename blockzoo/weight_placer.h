// Puts weights where a backend's kernels read them: mapped files stay mapped where kernels share
// the host's memory, everything else is copied once for all blocks that name it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "blockzoo/weight_source.h"
#include "config/foundation/digest.h"
#include "config/foundation/status.h"
#include "kernels/backend.h"

namespace tessera::blockzoo {

// A weight's bytes, as kernels see them, while a copy of this lives.
class PlacedWeight {
 public:
  PlacedWeight() = default;
  explicit PlacedWeight(WeightHandle mapped) : data_(mapped.data()), mapped_(std::move(mapped)) {}
  explicit PlacedWeight(std::shared_ptr<const kernels::Buffer> copy)
      : data_(copy->data()), copy_(std::move(copy)) {}
  [[nodiscard]] const std::byte* data() const { return data_; }

 private:
  const std::byte* data_ = nullptr;
  WeightHandle mapped_;
  std::shared_ptr<const kernels::Buffer> copy_;
};

// Thread-safe. What it placed is there when the backend's memory has settled.
class WeightPlacer {
 public:
  explicit WeightPlacer(const kernels::Backend& backend) : backend_(backend) {}

  // The Linear weight `tensor` [out, in] in the layout that the backend's kernels read. Errors of
  // the source; UNIMPLEMENTED when the backend has no layout for it; RESOURCE_EXHAUSTED when its
  // memory is full.
  [[nodiscard]] StatusOr<PlacedWeight> Place(const TensorRef& tensor, uint64_t out, uint64_t in,
                                             WeightSource& source);
  // The weights `tensors`, each [out, in], as one would be that has all their rows: one after
  // another. None where that cannot be: in the host's memory, of a type whose bytes are more than
  // rows, or with one of them in place already. Errors as of Place.
  [[nodiscard]] StatusOr<std::vector<PlacedWeight>> PlaceInOrder(std::span<const TensorRef> tensors,
                                                                 WeightSource& source);

 private:
  using Copy = std::weak_ptr<const kernels::Buffer>;

  StatusOr<WeightHandle> Load(const TensorRef& tensor, uint64_t out, uint64_t in,
                              const kernels::WeightLayout& layout, WeightSource& source) const;
  // Makes a weight's bytes (layout.bytes) in the backend's memory, or begins to copy them.
  Status Fill(const TensorRef& tensor, uint64_t out, uint64_t in,
              const kernels::WeightLayout& layout, WeightSource& source,
              const std::shared_ptr<const kernels::Buffer>& to) const;
  // Bytes of `tensor` if it may be followed by another; 0 if not.
  StatusOr<uint64_t> BytesInOrder(const TensorRef& tensor);

  const kernels::Backend& backend_;
  std::mutex mutex_;
  // Copies that live, by tensor and layout.
  std::map<std::pair<Digest, std::string>, Copy> copies_;
};

}  // namespace tessera::blockzoo
