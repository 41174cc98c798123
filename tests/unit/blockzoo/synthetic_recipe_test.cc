#include "blockzoo/synthetic_recipe.h"

#include <gtest/gtest.h>

#include <vector>

#include "blockzoo/synthetic_models.h"
#include "kernels/weight_planes.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;

SyntheticRecipe SomeRecipe() {
  return {.dtype = DType::kBF16, .shape = {3, 64}, .seed = UINT64_MAX, .scale = 1e-6f};
}

TEST(SyntheticRecipeTest, ReadsBackAsWritten) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8Channel, DType::kF8Block128,
                            DType::kI8Channel, DType::kI4G64, DType::kI4G64Zero}) {
    SyntheticRecipe recipe = SomeRecipe();
    recipe.dtype = dtype;
    recipe.scale = kernels::SyntheticScale(dtype, kernels::HasPlanes(dtype) ? 1e-3 : 1e-6);
    const auto parsed = ParseSyntheticRecipe(CanonicalText(recipe));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, recipe);
    EXPECT_EQ(IdentityOf(*parsed), IdentityOf(recipe));
    EXPECT_LT(CanonicalText(recipe).size(), 200u);
  }
}

TEST(SyntheticRecipeTest, EveryFieldIsPartOfTheIdentity) {
  const SyntheticRecipe recipe = SomeRecipe();
  std::vector<SyntheticRecipe> others(4, recipe);
  others[0].seed = 0;
  others[1].scale = 2e-6f;
  others[2].shape = {64, 3};
  others[3].algorithm = kernels::SyntheticAlgorithm::kConstant;
  for (const SyntheticRecipe& other : others) EXPECT_NE(IdentityOf(other), IdentityOf(recipe));
}

// Neither the tensor of its bytes nor any that has its text for bytes is the same tensor.
TEST(SyntheticRecipeTest, IdentityIsNoStoredTensors) {
  const SyntheticRecipe recipe = SomeRecipe();
  std::vector<std::byte> bytes(GeneratorOf(recipe)->bytes);
  kernels::FillSynthetic(*GeneratorOf(recipe), bytes, 1);
  const auto view = [](const auto& held) {
    return std::span(reinterpret_cast<const uint8_t*>(held.data()), held.size());
  };
  EXPECT_NE(TensorIdentity(recipe.dtype, recipe.shape, view(bytes)), IdentityOf(recipe));
  const std::string text = CanonicalText(recipe);
  EXPECT_NE(TensorIdentity(recipe.dtype, recipe.shape, view(text)), IdentityOf(recipe));
}

TEST(SyntheticRecipeTest, RefusesWhatIsNotItsCanonicalText) {
  const std::string text = CanonicalText(SomeRecipe());
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseSyntheticRecipe(text.substr(0, size)).status()));
  }
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    const size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return changed.replace(at, from.size(), to);
  };
  for (const std::string& changed : {replaced("normal-v1", "normal-v2"),
                                     replaced("BF16", "F16"),
                                     replaced("BF16", "F8_E4M3"),
                                     replaced("[3,64]", "[3,64,1]"),
                                     replaced("[3,64]", "[]"),
                                     replaced("[3,64]", "[0,64]"),
                                     replaced("[3,64]", "[-3,64]"),
                                     replaced("[3,64]", "[3,2147483648]"),
                                     replaced(":18446744073709551615", ":-1"),
                                     replaced(":18446744073709551615", ":1.5"),
                                     replaced(":18446744073709551615", ":18446744073709551616"),
                                     replaced("\"scale\":", "\"scale\":-"),
                                     replaced("\"scale\":", "\"scale\":1e300,\"x\":"),
                                     replaced("\"seed\"", "\"sead\""),
                                     replaced(",", ", "),
                                     text + "\n",
                                     replaced("{", "{\"a\":1,"),
                                     std::string(2000, '['),
                                     std::string("[1]"),
                                     std::string()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseSyntheticRecipe(changed).status())) << changed;
  }
}

TEST(SyntheticModelsTest, ShapesAreThoseOfTheModels) {
  const struct {
    const char* name;
    uint64_t parameters;
    size_t blocks;
  } models[] = {{"smollm2-135m", 134'515'008, 62},
                {"llama-3-8b", 8'030'261'248, 66},
                {"llama-3-70b", 70'553'706'496, 162}};
  for (const auto& [name, parameters, blocks] : models) {
    const auto model = FindSyntheticModel(name);
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(model->plan.blocks.size(), blocks);
    std::map<std::string, uint64_t> tensors;
    for (const BlockPlan& block : model->plan.blocks) {
      for (const BlockPlan::Part& part : block.tensors) {
        uint64_t elements = 1;
        for (const uint64_t dimension : part.tensor.shape) elements *= dimension;
        tensors[part.tensor.name] = elements;
      }
    }
    uint64_t sum = 0;
    for (const auto& [tensor, elements] : tensors) sum += elements;
    EXPECT_EQ(sum, parameters) << name;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(FindSyntheticModel("gpt").status()));
}

TEST(SyntheticModelsTest, TypesThatDoNotFitAreNamed) {
  const auto model = FindSyntheticModel("smollm2-135m");
  ASSERT_TRUE(model.ok());
  const CheckpointTensor& q = model->plan.blocks[1].tensors[1].tensor;
  EXPECT_TRUE(RecipeFor(*model, q, DType::kI4G64, 1, 0).ok());
  const Status status = RecipeFor(*model, q, DType::kI4G128, 1, 0).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_NE(status.message().find("multiple of 128"), absl::string_view::npos) << status;
  EXPECT_FALSE(RecipeFor(*model, q, DType::kQ4_0, 1, 0).ok());
}

}  // namespace
}  // namespace tessera::blockzoo
