#include "blockzoo/zoo_references.h"

#include "blockzoo/zoo_objects.h"

namespace tessera::blockzoo {

StatusOr<const BlockManifest*> BlockReader::Get(const Digest& digest) {
  const auto found = blocks_.find(digest);
  if (found != blocks_.end()) return &found->second;
  TESSERA_ASSIGN_OR_RETURN(BlockManifest manifest, ReadBlock(layout_, digest));
  return &blocks_.emplace(digest, std::move(manifest)).first->second;
}

bool References::Uses(ObjectKind kind, const Digest& digest) const {
  switch (kind) {
    case ObjectKind::kTensor:
    case ObjectKind::kRecipe:
      return tensors.contains(digest);
    case ObjectKind::kBlock:
      return blocks.contains(digest);
    case ObjectKind::kAsset:
      return assets.contains(digest);
  }
  return true;
}

uint64_t References::TensorBytesInAll() const {
  uint64_t bytes = 0;
  for (const auto& [digest, size] : tensors) bytes += size;
  return bytes;
}

Status AddReferences(const ChainManifest& chain, BlockReader& reader, References& references) {
  for (const auto& [name, digest] : chain.assets) references.assets.insert(digest);
  for (const auto& [name, digest] : chain.source) references.assets.insert(digest);
  for (const Digest& digest : chain.blocks) {
    if (!references.blocks.insert(digest).second) continue;
    TESSERA_ASSIGN_OR_RETURN(const BlockManifest* block, reader.Get(digest));
    for (const TensorRef& ref : block->tensors) {
      TESSERA_ASSIGN_OR_RETURN(references.tensors[ref.tensor], TensorBytes(ref.dtype, ref.shape));
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::blockzoo
