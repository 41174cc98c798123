#include "blockzoo/weight_placer.h"

#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "kernels/weight_planes.h"

namespace tessera::blockzoo {
namespace {

// What kernels ask of a weight's first byte, at most.
constexpr uint64_t kPieceAlignment = 256;

class PieceOf final : public kernels::Buffer {
 public:
  PieceOf(std::shared_ptr<kernels::Buffer> whole, uint64_t begin, uint64_t size)
      : Buffer(whole->data() + begin, size), whole_(std::move(whole)) {}

 private:
  std::shared_ptr<kernels::Buffer> whole_;
};

}  // namespace

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
  // The second of two threads that want a tensor takes the first one's copy, and settles it too.
  const std::lock_guard lock(mutex_);
  Copy& known = copies_[{tensor.tensor, layout.transform}];
  if (std::shared_ptr<const kernels::Buffer> live = known.lock()) {
    return PlacedWeight(std::move(live));
  }
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<kernels::Buffer> copy,
                           memory.Allocate(layout.bytes, "weights"));
  TESSERA_RETURN_IF_ERROR(Fill(tensor, out, in, layout, source, copy));
  known = copy;
  return PlacedWeight(copy);
}

Status WeightPlacer::Fill(const TensorRef& tensor, uint64_t out, uint64_t in,
                          const kernels::WeightLayout& layout, WeightSource& source,
                          const std::shared_ptr<const kernels::Buffer>& to) const {
  std::optional<SyntheticRecipe> recipe;
  if (layout.transform.empty() && backend_.generates()) {
    TESSERA_ASSIGN_OR_RETURN(recipe, source.Recipe(tensor));
  }
  if (recipe.has_value()) {
    TESSERA_ASSIGN_OR_RETURN(const kernels::SyntheticTensor generator, GeneratorOf(*recipe));
    return backend_.Generate(generator, to->data());
  }
  TESSERA_ASSIGN_OR_RETURN(WeightHandle bytes, Load(tensor, out, in, layout, source));
  const auto kept = std::make_shared<const WeightHandle>(std::move(bytes));
  return backend_.memory().WriteLater(
      {.bytes = {kept->data(), kept->size()}, .keeper = kept, .file = kept->file()}, to->data(),
      to);
}

StatusOr<uint64_t> WeightPlacer::BytesInOrder(const TensorRef& tensor) {
  TESSERA_ASSIGN_OR_RETURN(const kernels::WeightLayout layout,
                           backend_.LinearLayout(tensor.dtype, tensor.shape[0], tensor.shape[1]));
  const auto known = copies_.find({tensor.tensor, layout.transform});
  const bool lives = known != copies_.end() && !known->second.expired();
  const bool rows_alone = layout.transform.empty() && !kernels::HasPlanes(tensor.dtype);
  return rows_alone && !lives && layout.bytes % kPieceAlignment == 0 ? layout.bytes : 0;
}

StatusOr<std::vector<PlacedWeight>> WeightPlacer::PlaceInOrder(std::span<const TensorRef> tensors,
                                                               WeightSource& source) {
  std::vector<PlacedWeight> placed;
  kernels::Memory& memory = backend_.memory();
  if (memory.host_addressable()) return placed;
  const std::lock_guard lock(mutex_);
  std::vector<uint64_t> sizes;
  std::set<Digest> different;
  for (const TensorRef& tensor : tensors) {
    TESSERA_ASSIGN_OR_RETURN(sizes.emplace_back(), BytesInOrder(tensor));
    if (sizes.back() == 0 || tensor.dtype != tensors[0].dtype) return placed;
    different.insert(tensor.tensor);
  }
  if (different.size() < tensors.size()) return placed;
  TESSERA_ASSIGN_OR_RETURN(
      const std::shared_ptr<kernels::Buffer> whole,
      memory.Allocate(std::accumulate(sizes.begin(), sizes.end(), uint64_t{0}), "weights"));
  uint64_t begin = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorRef& tensor = tensors[i];
    const auto piece = std::make_shared<const PieceOf>(whole, begin, sizes[i]);
    const kernels::WeightLayout layout{.transform = "", .bytes = sizes[i]};
    TESSERA_RETURN_IF_ERROR(Fill(tensor, tensor.shape[0], tensor.shape[1], layout, source, piece));
    copies_[{tensor.tensor, layout.transform}] = piece;
    placed.emplace_back(std::shared_ptr<const kernels::Buffer>(piece));
    begin += sizes[i];
  }
  return placed;
}

}  // namespace tessera::blockzoo
