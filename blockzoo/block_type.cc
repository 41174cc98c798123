#include "blockzoo/block_type.h"

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {

// Sets what a block type does not know of itself.
class BlockBinder {
 public:
  static Status Finish(const Digest& identity, const BindContext& context, BoundBlock& block) {
    block.identity_ = identity;
    block.type_ = context.manifest.type;
    BlockManifest shape = context.manifest;
    for (TensorRef& tensor : shape.tensors) {
      block.mapped_.push_back({tensor.tensor, BytesOf(tensor)});
      tensor.tensor = Digest();
    }
    Hasher hasher;
    hasher.AddText(CanonicalText(shape));
    for (const kvcache::StateSpec& state : block.state_) {
      hasher.AddU64(static_cast<uint64_t>(state.format.dtype));
      hasher.AddU64(state.format.key_statistics ? 1 : 0);
    }
    block.signature_ = hasher.Finish();
    return absl::OkStatus();
  }

 private:
  static uint64_t BytesOf(const TensorRef& tensor) {
    uint64_t rows = 1;
    for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
    return kernels::StorageBytes(tensor.dtype, rows, tensor.shape.back()).value_or(0);
  }
};

StatusOr<std::unique_ptr<BoundBlock>> BindBlock(const Digest& identity,
                                                const BindContext& context) {
  static const BlockTypeRegistry* registry = [] {
    auto* made = new BlockTypeRegistry;
    RegisterBlockTypes(*made);
    return made;
  }();
  if (context.placement.world != 1 || context.placement.rank != 0) {
    return Error(absl::StatusCode::kUnimplemented,
                 {.what = absl::StrCat("a chain was placed on rank ", context.placement.rank,
                                       " of ", context.placement.world),
                  .why = "this backend runs a chain on one device",
                  .fix = "place it on rank 0 of 1"});
  }
  std::string known;
  for (const BlockType& type : registry->types()) {
    if (context.manifest.type != type.name) {
      absl::StrAppend(&known, known.empty() ? "" : ", ", type.name);
      continue;
    }
    StatusOr<std::unique_ptr<BoundBlock>> block = type.bind(context);
    if (!block.ok()) return Annotate(block.status(), absl::StrCat("block ", identity.Short()));
    TESSERA_RETURN_IF_ERROR(BlockBinder::Finish(identity, context, **block));
    return block;
  }
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat("block ", identity.Short(), " has type \"",
                                     context.manifest.type, "\""),
                .why = absl::StrCat("the known ones are ", known)});
}

}  // namespace tessera::blockzoo
