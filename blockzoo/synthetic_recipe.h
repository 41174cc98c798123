// A tensor that is stored as its recipe: a few numbers from which its bytes are made at load.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/strings/string_view.h"
#include "blockzoo/manifest.h"
#include "config/foundation/digest.h"
#include "config/foundation/status.h"
#include "kernels/synthetic_tensor.h"

namespace tessera::blockzoo {

// What kernels/synthetic.h needs. A vector of `shape` [n] has one row.
struct SyntheticRecipe {
  kernels::SyntheticAlgorithm algorithm = kernels::SyntheticAlgorithm::kNormal;
  kernels::DType dtype = kernels::DType::kF32;
  Shape shape;  // one or two dimensions
  uint64_t seed = 0;
  float scale = 0;

  bool operator==(const SyntheticRecipe&) const = default;
};

// JSON with sorted keys and no spaces, below kMaxRecipeBytes:
// {"algorithm":"normal-v1","dtype":"BF16","scale":…,"seed":…,"shape":[…]}. What is hashed and
// stored. The version changes when the bytes that a recipe gives would.
inline constexpr uint64_t kMaxRecipeBytes = 1024;
[[nodiscard]] std::string CanonicalText(const SyntheticRecipe& recipe);
// INVALID_ARGUMENT with the field and the reason; also for a text that is not canonical, so that a
// recipe has one identity. What it gives can be made.
[[nodiscard]] StatusOr<SyntheticRecipe> ParseSyntheticRecipe(absl::string_view text);
// The identity of the tensor that the recipe makes: SHA-256 of a prefix that no tensor of stored
// bytes begins with, then the canonical text.
[[nodiscard]] Digest IdentityOf(const SyntheticRecipe& recipe);

// The parameters for a generator; errors as kernels::MakeSyntheticTensor.
[[nodiscard]] StatusOr<kernels::SyntheticTensor> GeneratorOf(const SyntheticRecipe& recipe);

}  // namespace tessera::blockzoo
