#include "blockzoo/weight_placer.h"

#include <optional>
#include <span>
#include <utility>

namespace tessera::blockzoo {

StatusOr<WeightHandle> WeightPlacer::Load(const TensorRef& tensor, uint64_t out, uint64_t in,
                                          const kernels::WeightLayout& layout,
                                          WeightSource& source) const {
  if (layout.transform.empty()) return source.Canonical(tensor);
  const auto derive = [&](std::span<const std::byte> canonical, std::span<std::byte> derived) {
    backend_.PackLinear(tensor.dtype, out, in, canonical.data(), derived.data());
  };
  return source.Derived(tensor, layout.transform, layout.bytes, derive);
}

StatusOr<PlacedWeight> WeightPlacer::Place(const TensorRef& tensor, uint64_t out, uint64_t in,
                                           WeightSource& source) {
  TESSERA_ASSIGN_OR_RETURN(const kernels::WeightLayout layout,
                           backend_.LinearLayout(tensor.dtype, out, in));
  kernels::Memory& memory = backend_.memory();
  if (memory.host_addressable()) {
    TESSERA_ASSIGN_OR_RETURN(WeightHandle mapped, Load(tensor, out, in, layout, source));
    return PlacedWeight(std::move(mapped));
  }
  // Held while it is copied: the second of two threads that want a tensor waits for the first.
  const std::lock_guard lock(mutex_);
  std::weak_ptr<const kernels::Buffer>& known = copies_[{tensor.tensor, layout.transform}];
  if (std::shared_ptr<const kernels::Buffer> live = known.lock()) {
    return PlacedWeight(std::move(live));
  }
  std::optional<SyntheticRecipe> recipe;
  if (layout.transform.empty() && backend_.generates()) {
    TESSERA_ASSIGN_OR_RETURN(recipe, source.Recipe(tensor));
  }
  std::shared_ptr<kernels::Buffer> copy;
  if (recipe.has_value()) {
    TESSERA_ASSIGN_OR_RETURN(const kernels::SyntheticTensor generator, GeneratorOf(*recipe));
    TESSERA_ASSIGN_OR_RETURN(copy, memory.Allocate(generator.bytes, "weights"));
    TESSERA_RETURN_IF_ERROR(backend_.Generate(generator, copy->data()));
  } else {
    TESSERA_ASSIGN_OR_RETURN(const WeightHandle bytes, Load(tensor, out, in, layout, source));
    TESSERA_ASSIGN_OR_RETURN(copy, memory.Allocate(bytes.size(), "weights"));
    TESSERA_RETURN_IF_ERROR(memory.Write(std::span(bytes.data(), bytes.size()), copy->data()));
  }
  known = copy;
  return PlacedWeight(std::move(copy));
}

}  // namespace tessera::blockzoo
