// Weights in memory: mapped when first asked for, shared while in use, unmapped with the last
// handle.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "blockzoo/weight_source.h"
#include "blockzoo/zoo_io.h"
#include "blockzoo/zoo_layout.h"
#include "blockzoo/zoo_mapping.h"

namespace tessera::blockzoo {

enum class DerivedStorage : uint8_t { kCached, kMemoryOnly };

// Thread-safe. Equal (tensor, transform) pairs give handles to the same memory while one lives.
class WeightCache {
 public:
  // Both must outlive the cache. kMemoryOnly never writes: what derived/ lacks is made in memory.
  // All weights made in memory take `memory_bytes` at most.
  WeightCache(const ZooLayout& layout, const DiskWriter& disk, DerivedStorage storage,
              uint64_t memory_bytes)
      : layout_(layout), disk_(disk), storage_(storage), memory_bytes_(memory_bytes) {}

  // NOT_FOUND, or DATA_LOSS when the file's size is not what `tensor` says; a synthetic tensor is
  // made, RESOURCE_EXHAUSTED where there is no room for it.
  [[nodiscard]] StatusOr<WeightHandle> Canonical(const TensorRef& tensor);
  // nullopt for a tensor that has no recipe; DATA_LOSS when the recipe is for another tensor.
  [[nodiscard]] StatusOr<std::optional<SyntheticRecipe>> Recipe(const TensorRef& tensor) const;
  // A file that is damaged is made again; where the disk refuses, it is made in memory.
  [[nodiscard]] StatusOr<WeightHandle> Derived(const TensorRef& tensor, absl::string_view transform,
                                               uint64_t bytes, const Derive& derive);

  struct Usage {
    uint64_t mapped_bytes = 0;     // of files
    uint64_t anonymous_bytes = 0;  // derived in memory
  };
  [[nodiscard]] Usage InUse();

 private:
  struct Weight;
  struct Entry {
    std::mutex making;                 // held while the weight is mapped or made
    std::weak_ptr<const Weight> live;  // guarded by mutex_
  };
  [[nodiscard]] std::shared_ptr<const Weight> Live(const Entry& entry);
  [[nodiscard]] WeightHandle Publish(Entry& entry, const std::shared_ptr<const Weight>& weight);
  [[nodiscard]] std::shared_ptr<Entry> EntryOf(const std::string& path);
  [[nodiscard]] StatusOr<std::shared_ptr<const Weight>> MapCanonical(const TensorRef& tensor,
                                                                     const std::string& path);
  [[nodiscard]] StatusOr<std::shared_ptr<MappedFile>> Allocate(const TensorRef& tensor,
                                                               uint64_t bytes);
  [[nodiscard]] StatusOr<std::shared_ptr<const Weight>> MakeDerived(const TensorRef& tensor,
                                                                    absl::string_view transform,
                                                                    uint64_t bytes,
                                                                    const Derive& derive);
  [[nodiscard]] Status StoreDerived(const Digest& tensor, absl::string_view transform,
                                    std::span<const std::byte> bytes);

  const ZooLayout& layout_;
  const DiskWriter& disk_;
  const DerivedStorage storage_;
  const uint64_t memory_bytes_;
  std::mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<Entry>> entries_;
};

// Re-hashes one file of derived/; DATA_LOSS when it is cut short or changed.
[[nodiscard]] Status CheckDerivedFile(const std::string& path, absl::string_view transform,
                                      const Digest& tensor);

}  // namespace tessera::blockzoo
