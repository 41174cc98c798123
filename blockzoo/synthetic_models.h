// The models whose shapes `Zoo::Synthesise` knows, cut into blocks as an imported checkpoint of
// that model is.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "blockzoo/import/architecture.h"
#include "blockzoo/synthetic_recipe.h"
#include "config/foundation/status.h"

namespace tessera::blockzoo {

// "llama-3-8b", …
[[nodiscard]] std::vector<std::string> SyntheticModelNames();

struct SyntheticModel {
  // Tensors have names and shapes, and no bytes; what they share by name is one tensor.
  ChainPlan plan;
  uint32_t layers = 0;
  std::string table;  // the embedding's tensor
  bool tied = false;  // the lm_head reads it too
};

// INVALID_ARGUMENT naming the known ones.
[[nodiscard]] StatusOr<SyntheticModel> FindSyntheticModel(absl::string_view name);

// The recipe of one of the model's tensors. Matrices of layers have `dtype`, the embedding's table
// and the lm_head BF16 (F32 where `dtype` is), norms are F32 ones. Deviations keep activations near
// 1: gain / sqrt(columns), where the gain of what is added to the residual stream is
// 1 / sqrt(2 layers), that of the lm_head 4 (2 where it is the table), so that the likeliest token
// stands out. `variant` 0 is the base. INVALID_ARGUMENT when `dtype` does not fit the shape.
[[nodiscard]] StatusOr<SyntheticRecipe> RecipeFor(const SyntheticModel& model,
                                                  const CheckpointTensor& tensor,
                                                  kernels::DType dtype, uint64_t seed,
                                                  uint64_t variant);

}  // namespace tessera::blockzoo
