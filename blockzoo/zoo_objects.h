// Objects of a zoo: written once by content, read back with their identity checked.
#pragma once

#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "blockzoo/manifest.h"
#include "blockzoo/synthetic_recipe.h"
#include "blockzoo/zoo_io.h"
#include "blockzoo/zoo_layout.h"

namespace tessera::blockzoo {

// SHA-256 of the plain bytes, as `sha256sum` prints it.
[[nodiscard]] Digest AssetIdentity(absl::string_view bytes);

// `TensorIdentity` in pieces.
class TensorHasher {
 public:
  TensorHasher(kernels::DType dtype, const Shape& shape);
  void Add(std::span<const std::byte> bytes);
  [[nodiscard]] Digest Finish() { return hasher_.Finish(); }

 private:
  Hasher hasher_;
};

// Writes objects in batches: each batch is written to tmp/, synced, and renamed. What is present is
// not written again, so a run that was cut short continues. The caller holds the writer lock. Any
// threads may put; while one waits for the disk, the others go on.
class ObjectWriter {
 public:
  // Both must outlive the writer.
  ObjectWriter(const ZooLayout& layout, const DiskWriter& disk) : layout_(layout), disk_(disk) {}

  [[nodiscard]] Status Put(ObjectKind kind, const Digest& digest, std::span<const std::byte> bytes);
  // Afterwards everything that was put is on disk and survives a power cut. Nobody puts meanwhile.
  [[nodiscard]] Status Commit();

  // After `Commit`.
  [[nodiscard]] uint64_t new_bytes() const { return new_bytes_; }
  [[nodiscard]] uint64_t new_objects() const { return new_objects_; }
  [[nodiscard]] uint64_t present_bytes() const { return present_bytes_; }

 private:
  struct Pending {
    TempFile file;
    std::string directory;
    std::string path;
  };
  enum class Claim : uint8_t { kPresent, kToWrite };
  [[nodiscard]] Claim ClaimPath(const std::string& path, const std::string& directory,
                                uint64_t bytes);
  // Makes what was put durable under its final name.
  [[nodiscard]] Status Publish(std::vector<Pending> batch);

  const ZooLayout& layout_;
  const DiskWriter& disk_;
  std::mutex mutex_;  // guards everything below
  std::vector<Pending> pending_;
  std::set<std::string> claimed_;  // being written, or written and not published
  std::set<std::string> touched_directories_;
  uint64_t pending_bytes_ = 0;
  uint64_t new_bytes_ = 0;
  uint64_t new_objects_ = 0;
  uint64_t present_bytes_ = 0;
};

// NOT_FOUND when missing, DATA_LOSS when the text does not hash to `digest`.
[[nodiscard]] StatusOr<BlockManifest> ReadBlock(const ZooLayout& layout, const Digest& digest);
// NOT_FOUND when no recipe has that identity, DATA_LOSS when its text does not.
[[nodiscard]] StatusOr<SyntheticRecipe> ReadRecipe(const ZooLayout& layout, const Digest& digest);
[[nodiscard]] StatusOr<std::string> ReadAsset(const ZooLayout& layout, const Digest& digest);
// NOT_FOUND naming the chain and what exists; DATA_LOSS when the manifest is damaged.
[[nodiscard]] StatusOr<ChainManifest> ReadChain(const ZooLayout& layout, absl::string_view name);
// Sorted names of the chains that are there.
[[nodiscard]] StatusOr<std::vector<std::string>> ListChainNames(const ZooLayout& layout);

}  // namespace tessera::blockzoo
