// Where a chain's bytes come from when it is bound: the zoo, or a source made for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "blockzoo/manifest.h"
#include "blockzoo/synthetic_recipe.h"
#include "config/foundation/status.h"

namespace tessera::blockzoo {

// Bytes of a weight, and the file that begins with them where there is one.
struct WeightBytes {
  std::span<const std::byte> bytes;
  std::string file;
};

// Bytes that stay valid and unchanged while a copy of the handle lives; usually a mapped file.
// Equal (tensor, transform) pairs give handles to the same memory. Thread-safe.
class WeightHandle {
 public:
  WeightHandle() = default;
  explicit WeightHandle(std::shared_ptr<const WeightBytes> weight) : weight_(std::move(weight)) {}
  [[nodiscard]] const std::byte* data() const { return weight_ ? weight_->bytes.data() : nullptr; }
  [[nodiscard]] size_t size() const { return weight_ ? weight_->bytes.size() : 0; }
  [[nodiscard]] std::string file() const { return weight_ ? weight_->file : ""; }

 private:
  std::shared_ptr<const WeightBytes> weight_;
};

// Makes the derived bytes of a tensor: reads canonical bytes, fills all of `derived`.
using Derive =
    std::function<void(std::span<const std::byte> canonical, std::span<std::byte> derived)>;

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // The canonical bytes. NOT_FOUND or DATA_LOSS by digest, RESOURCE_EXHAUSTED when those of a
  // synthetic tensor, which are made in memory, find no room.
  [[nodiscard]] virtual StatusOr<WeightHandle> Canonical(const TensorRef& tensor) = 0;
  // The lossless rearrangement `transform` of a tensor, `bytes` long: taken from the cache, or made
  // by `derive` and cached. A read-only zoo that lacks it makes it in memory, as every zoo does for
  // a synthetic tensor.
  [[nodiscard]] virtual StatusOr<WeightHandle> Derived(const TensorRef& tensor,
                                                       absl::string_view transform, uint64_t bytes,
                                                       const Derive& derive) = 0;
  // The recipe of a synthetic tensor, for a backend that makes the bytes where it wants them
  // (kernels/synthetic.h); nullopt for a tensor of stored bytes. NOT_FOUND or DATA_LOSS by digest.
  [[nodiscard]] virtual StatusOr<std::optional<SyntheticRecipe>> Recipe(const TensorRef& tensor) {
    return std::nullopt;
  }
  [[nodiscard]] virtual StatusOr<BlockManifest> Block(const Digest& block) = 0;
};

}  // namespace tessera::blockzoo
