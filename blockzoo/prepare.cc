#include "blockzoo/prepare.h"

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

// Every weight that a Linear or an embedding reads is a matrix; vectors are read as they are.
bool IsLinearWeight(const TensorRef& ref) { return ref.shape.size() == 2; }

Status PrepareTensor(Zoo& zoo, const TensorRef& ref, const kernels::Backend& backend) {
  const uint64_t out = ref.shape[0];
  const uint64_t in = ref.shape[1];
  TESSERA_ASSIGN_OR_RETURN(const kernels::WeightLayout layout,
                           backend.LinearLayout(ref.dtype, out, in));
  if (layout.transform.empty()) return absl::OkStatus();
  const auto derive = [&](std::span<const std::byte> canonical, std::span<std::byte> derived) {
    backend.PackLinear(ref.dtype, out, in, canonical.data(), derived.data());
  };
  return zoo.Derived(ref, layout.transform, layout.bytes, derive).status();
}

}  // namespace

Status PrepareDerived(Zoo& zoo, const ChainManifest& chain, const kernels::Backend& backend) {
  for (size_t i = 0; i < chain.blocks.size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(const BlockManifest block, zoo.Block(chain.blocks[i]));
    for (const TensorRef& ref : block.tensors) {
      if (!IsLinearWeight(ref)) continue;
      const Status status = PrepareTensor(zoo, ref, backend);
      if (!status.ok()) {
        return Annotate(status, absl::StrCat("block ", i, " (", block.type, "), ", ref.role));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::blockzoo
