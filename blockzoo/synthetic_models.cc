#include "blockzoo/synthetic_models.h"

#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;
using kernels::SyntheticAlgorithm;

constexpr const char* kTable = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";
constexpr double kHeadGain = 4;
// With the table's rows for its own, a larger one would answer every token with itself.
constexpr double kTiedHeadGain = 2;

struct LlamaShape {
  const char* name;
  int64_t layers, width, hidden, vocab, q_heads, kv_heads, head_dim, max_context;
  double rope_base;
  bool tied;
};

constexpr LlamaShape kShapes[] = {
    {"tiny", 4, 256, 512, 512, 4, 2, 64, 2048, 10000, false},
    {"smollm2-135m", 30, 576, 1536, 49152, 9, 3, 64, 8192, 100000, true},
    {"llama-3-8b", 32, 4096, 14336, 128256, 32, 8, 128, 131072, 500000, false},
    {"llama-3-70b", 80, 8192, 28672, 128256, 64, 8, 128, 131072, 500000, false},
};

// A checkpoint with the settings and the tensors of a shape, as a Hugging Face directory has them.
class ShapeCheckpoint final : public Checkpoint {
 public:
  explicit ShapeCheckpoint(const LlamaShape& shape) {
    settings_.Set("num_hidden_layers", shape.layers);
    settings_.Set("hidden_size", shape.width);
    settings_.Set("intermediate_size", shape.hidden);
    settings_.Set("vocab_size", shape.vocab);
    settings_.Set("num_attention_heads", shape.q_heads);
    settings_.Set("num_key_value_heads", shape.kv_heads);
    settings_.Set("head_dim", shape.head_dim);
    settings_.Set("max_position_embeddings", shape.max_context);
    settings_.Set("rms_norm_eps", 1e-5);
    settings_.Set("rope_theta", shape.rope_base);
    const auto width = static_cast<uint64_t>(shape.width);
    const auto hidden = static_cast<uint64_t>(shape.hidden);
    const auto vocab = static_cast<uint64_t>(shape.vocab);
    const auto q = static_cast<uint64_t>(shape.q_heads * shape.head_dim);
    const auto kv = static_cast<uint64_t>(shape.kv_heads * shape.head_dim);
    Add(kTable, {vocab, width});
    for (int64_t i = 0; i < shape.layers; ++i) {
      const std::string layer = absl::StrCat("model.layers.", i, ".");
      Add(layer + "input_layernorm.weight", {width});
      Add(layer + "self_attn.q_proj.weight", {q, width});
      Add(layer + "self_attn.k_proj.weight", {kv, width});
      Add(layer + "self_attn.v_proj.weight", {kv, width});
      Add(layer + "self_attn.o_proj.weight", {width, q});
      Add(layer + "post_attention_layernorm.weight", {width});
      Add(layer + "mlp.gate_proj.weight", {hidden, width});
      Add(layer + "mlp.up_proj.weight", {hidden, width});
      Add(layer + "mlp.down_proj.weight", {width, hidden});
    }
    Add("model.norm.weight", {width});
    if (!shape.tied) Add(kHead, {vocab, width});
  }

  std::string format() const override { return "synthetic"; }
  StatusOr<std::string> architecture() const override { return std::string("llama"); }
  StatusOr<CheckpointTensor> Tensor(absl::string_view name) const override {
    const auto found = tensors_.find(std::string(name));
    if (found == tensors_.end()) return absl::NotFoundError(name);
    return found->second;
  }
  std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    return names;
  }
  const Attributes& settings() const override { return settings_; }
  StatusOr<std::map<std::string, std::string>> Assets() const override {
    return std::map<std::string, std::string>();
  }
  [[nodiscard]] StatusOr<std::vector<CheckpointFile>> Files() const override {
    return std::vector<CheckpointFile>();
  }
  StatusOr<std::vector<uint32_t>> EndTokenIds() const override { return std::vector<uint32_t>(); }

 private:
  void Add(const std::string& name, const Shape& shape) {
    tensors_[name] = {name, DType::kF32, shape, {}};
  }

  Attributes settings_;
  std::map<std::string, CheckpointTensor> tensors_;
};

uint64_t TensorSeed(absl::string_view tensor, uint64_t seed, uint64_t variant) {
  const Digest digest = Hasher()
                            .AddText("tessera synthetic seed")
                            .AddU64(seed)
                            .AddU64(variant)
                            .AddText(tensor)
                            .Finish();
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value |= uint64_t{digest.bytes[i]} << (8 * i);
  return value;
}

double DeviationOf(const SyntheticModel& model, const CheckpointTensor& tensor) {
  const double columns = static_cast<double>(tensor.shape.back());
  if (tensor.name == model.table && !model.tied) return 1;
  if (tensor.name == model.table) return kTiedHeadGain / std::sqrt(columns);
  if (tensor.name == kHead) return kHeadGain / std::sqrt(columns);
  const bool adds =
      absl::StrContains(tensor.name, ".o_proj.") || absl::StrContains(tensor.name, ".down_proj.");
  return adds ? 1 / std::sqrt(2.0 * model.layers * columns) : 1 / std::sqrt(columns);
}

}  // namespace

std::vector<std::string> SyntheticModelNames() {
  std::vector<std::string> names;
  for (const LlamaShape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

StatusOr<SyntheticModel> FindSyntheticModel(absl::string_view name) {
  for (const LlamaShape& shape : kShapes) {
    if (name != shape.name) continue;
    const ShapeCheckpoint checkpoint(shape);
    TESSERA_ASSIGN_OR_RETURN(const Architecture architecture, FindArchitecture(checkpoint));
    SyntheticModel model;
    model.layers = static_cast<uint32_t>(shape.layers);
    model.table = kTable;
    model.tied = shape.tied;
    TESSERA_ASSIGN_OR_RETURN(model.plan, architecture.cut(checkpoint));
    return model;
  }
  return Error(
      absl::StatusCode::kInvalidArgument,
      {.what = absl::StrCat("there is no synthetic model like \"", name, "\""),
       .why = absl::StrCat("the known ones are ", absl::StrJoin(SyntheticModelNames(), ", "))});
}

StatusOr<SyntheticRecipe> RecipeFor(const SyntheticModel& model, const CheckpointTensor& tensor,
                                    DType dtype, uint64_t seed, uint64_t variant) {
  SyntheticRecipe recipe{.shape = tensor.shape};
  if (tensor.shape.size() == 1) {
    recipe.algorithm = SyntheticAlgorithm::kConstant;
    recipe.scale = 1;
    return recipe;
  }
  const bool ends = tensor.name == model.table || tensor.name == kHead;
  recipe.dtype = ends && dtype != DType::kF32 ? DType::kBF16 : dtype;
  recipe.seed = TensorSeed(tensor.name, seed, variant);
  const double unit = kernels::SyntheticDeviation(recipe.dtype);
  if (unit > 0) {
    recipe.scale = kernels::SyntheticScale(recipe.dtype, DeviationOf(model, tensor) / unit);
  }
  const Status status = GeneratorOf(recipe).status();
  if (!status.ok()) return Annotate(status, tensor.name);
  return recipe;
}

}  // namespace tessera::blockzoo
