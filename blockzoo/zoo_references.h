// Which objects a chain uses.
#pragma once

#include <map>
#include <unordered_map>
#include <unordered_set>

#include "blockzoo/manifest.h"
#include "blockzoo/zoo_layout.h"

namespace tessera::blockzoo {

// Reads each block manifest once. One thread.
class BlockReader {
 public:
  explicit BlockReader(const ZooLayout& layout) : layout_(layout) {}
  // Valid while the reader lives; errors as `ReadBlock`.
  [[nodiscard]] StatusOr<const BlockManifest*> Get(const Digest& digest);

 private:
  const ZooLayout& layout_;
  std::unordered_map<Digest, BlockManifest> blocks_;
};

struct References {
  std::unordered_map<Digest, uint64_t> tensors;  // with their bytes
  std::unordered_set<Digest> blocks;
  std::unordered_set<Digest> assets;

  [[nodiscard]] bool Uses(ObjectKind kind, const Digest& digest) const;
  [[nodiscard]] uint64_t TensorBytesInAll() const;
};

[[nodiscard]] Status AddReferences(const ChainManifest& chain, BlockReader& reader,
                                   References& references);

}  // namespace tessera::blockzoo
