#include "blockzoo/synthetic_recipe.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "blockzoo/manifest_text.h"

namespace tessera::blockzoo {
namespace {

using kernels::SyntheticAlgorithm;
using nlohmann::json;

// A stored tensor's hash begins with the length and name of an element type, which this is not.
constexpr absl::string_view kDomain = "tessera synthetic tensor";
constexpr const char* kAlgorithms[] = {"normal-v1", "constant-v1"};

Status Bad(absl::string_view field, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("recipe field ", field, " is not valid"),
                .why = std::string(why),
                .fix = "make the chain again with `tessera zoo synth`"});
}

StatusOr<SyntheticAlgorithm> AlgorithmOf(const json& value) {
  for (size_t i = 0; i < std::size(kAlgorithms); ++i) {
    if (value == kAlgorithms[i]) return static_cast<SyntheticAlgorithm>(i);
  }
  return Bad("algorithm", absl::StrCat("the known ones are ", absl::StrJoin(kAlgorithms, ", ")));
}

Status ReadFields(const json& object, SyntheticRecipe& recipe) {
  for (const char* name : {"algorithm", "dtype", "scale", "seed", "shape"}) {
    if (!object.contains(name)) return Bad(name, "it is missing");
  }
  TESSERA_ASSIGN_OR_RETURN(recipe.algorithm, AlgorithmOf(object["algorithm"]));
  if (!object["dtype"].is_string()) return Bad("dtype", "it must be text");
  const auto dtype = kernels::DTypeFromName(object["dtype"].get_ref<const std::string&>());
  if (!dtype.has_value()) return Bad("dtype", "the element type is unknown");
  recipe.dtype = *dtype;
  if (!object["scale"].is_number()) return Bad("scale", "it must be a number");
  const auto scale = object["scale"].get<double>();
  if (!(scale > 0 && scale < 1e6)) return Bad("scale", "it must be above 0 and below 1e6");
  recipe.scale = static_cast<float>(scale);
  if (!object["seed"].is_number_unsigned()) return Bad("seed", "it must be a whole number");
  recipe.seed = object["seed"].get<uint64_t>();
  const json& shape = object["shape"];
  if (!shape.is_array() || shape.empty() || shape.size() > 2) {
    return Bad("shape", "it must be a list of one or two dimensions");
  }
  for (const json& dimension : shape) {
    if (!dimension.is_number_unsigned()) return Bad("shape", "dimensions must be whole numbers");
    recipe.shape.push_back(dimension.get<uint64_t>());
  }
  return absl::OkStatus();
}

}  // namespace

std::string CanonicalText(const SyntheticRecipe& recipe) {
  return absl::StrCat("{\"algorithm\":\"", kAlgorithms[static_cast<size_t>(recipe.algorithm)],
                      "\",\"dtype\":\"", kernels::InfoOf(recipe.dtype).name,
                      "\",\"scale\":", JsonNumber(recipe.scale), ",\"seed\":", recipe.seed,
                      ",\"shape\":[", absl::StrJoin(recipe.shape, ","), "]}");
}

StatusOr<SyntheticRecipe> ParseSyntheticRecipe(absl::string_view text) {
  if (text.size() > kMaxRecipeBytes) return Bad("", "the text is too long");
  const json object = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return Bad("", "it is not a JSON object");
  SyntheticRecipe recipe;
  TESSERA_RETURN_IF_ERROR(ReadFields(object, recipe));
  TESSERA_RETURN_IF_ERROR(TensorBytes(recipe.dtype, recipe.shape).status());
  const Status makes = GeneratorOf(recipe).status();
  if (!makes.ok()) return Bad("dtype, shape or scale", makes.message());
  if (CanonicalText(recipe) != text) return Bad("", "the text is not the canonical one");
  return recipe;
}

Digest IdentityOf(const SyntheticRecipe& recipe) {
  return Hasher().AddText(kDomain).AddText(CanonicalText(recipe)).Finish();
}

StatusOr<kernels::SyntheticTensor> GeneratorOf(const SyntheticRecipe& recipe) {
  const uint64_t rows = recipe.shape.size() == 1 ? 1 : recipe.shape[0];
  return kernels::MakeSyntheticTensor(recipe.dtype, rows, recipe.shape.back(), recipe.algorithm,
                                      recipe.seed, recipe.scale);
}

}  // namespace tessera::blockzoo
