#include "blockzoo/import/mixture.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace tessera::blockzoo {
namespace {

constexpr int64_t kMaxExperts = 4096;
constexpr Key kExperts = {"expert_count", "num_local_experts|num_experts|n_routed_experts"};
constexpr Key kUsed = {"expert_used_count", "num_experts_per_tok"};
constexpr Key kExpertHidden = {"expert_feed_forward_length", "moe_intermediate_size"};
constexpr Key kNormalised = {"expert_weights_norm", "norm_topk_prob"};

uint64_t Size(int64_t value) { return static_cast<uint64_t>(value); }

std::string OfExpert(const std::string& name, uint64_t expert) {
  return absl::StrReplaceAll(name, {{"*", absl::StrCat(expert)}});
}

// "NAME" + `suffix` of all parts, [parts * shape[0], …].
StatusOr<CheckpointTensor> TakeParts(TensorTaker& taker, const std::string& name,
                                     absl::string_view suffix, uint64_t parts, Shape shape) {
  if (!absl::StrContains(name, '*')) {
    Shape whole = shape;
    whole.insert(whole.begin(), parts);
    TESSERA_ASSIGN_OR_RETURN(CheckpointTensor tensor,
                             taker.Take(absl::StrCat(name, suffix), whole));
    shape[0] *= parts;
    tensor.shape = std::move(shape);
    return tensor;
  }
  std::vector<CheckpointTensor> tensors;
  for (uint64_t i = 0; i < parts; ++i) {
    TESSERA_ASSIGN_OR_RETURN(CheckpointTensor tensor,
                             taker.Take(absl::StrCat(OfExpert(name, i), suffix), shape));
    tensors.push_back(std::move(tensor));
  }
  return Stacked(absl::StrCat(name, suffix), std::move(tensors));
}

// Gate and up of every expert in one tensor: the rows of an expert's gate, then those of its up.
Status TakeGateUp(TensorTaker& taker, BlockPlan& block, const std::string& name,
                  const Mixture& mixture, uint64_t width) {
  const uint64_t hidden = Size(mixture.hidden);
  TESSERA_ASSIGN_OR_RETURN(const CheckpointTensor both,
                           TakeParts(taker, name, "", Size(mixture.experts), {2 * hidden, width}));
  for (const auto& [role, begin] : {std::pair("gate", uint64_t{0}), std::pair("up", hidden)}) {
    TESSERA_ASSIGN_OR_RETURN(CheckpointTensor part,
                             TakePeriodicRows(both, 2 * hidden, begin, hidden));
    block.tensors.push_back({role, std::move(part)});
  }
  return absl::OkStatus();
}

Status TakeExperts(TensorTaker& taker, BlockPlan& block, const std::string& prefix,
                   const Mixture& mixture, uint64_t width) {
  const MixtureNames& names = mixture.names;
  const uint64_t experts = Size(mixture.experts), hidden = Size(mixture.hidden);
  if (!names.selection_bias.empty()) {
    TESSERA_RETURN_IF_ERROR(
        taker.AddPartIfThere(block, "selection_bias", prefix + names.selection_bias, {experts}));
  }
  if (taker.Has(prefix + names.gate_up)) {
    TESSERA_RETURN_IF_ERROR(TakeGateUp(taker, block, prefix + names.gate_up, mixture, width));
  } else {
    TESSERA_RETURN_IF_ERROR(
        TakeStacked(taker, block, "gate", prefix + names.gate, experts, hidden, width));
    TESSERA_RETURN_IF_ERROR(
        TakeStacked(taker, block, "up", prefix + names.up, experts, hidden, width));
  }
  return TakeStacked(taker, block, "down", prefix + names.down, experts, width, hidden);
}

}  // namespace

Status TakeStacked(TensorTaker& taker, BlockPlan& block, const std::string& role,
                   const std::string& name, uint64_t parts, uint64_t out, uint64_t in) {
  TESSERA_ASSIGN_OR_RETURN(CheckpointTensor weight,
                           TakeParts(taker, name, ".weight", parts, {out, in}));
  block.tensors.push_back({role, std::move(weight)});
  if (!taker.Has(OfExpert(name, 0) + ".bias")) return absl::OkStatus();
  TESSERA_ASSIGN_OR_RETURN(CheckpointTensor bias, TakeParts(taker, name, ".bias", parts, {out}));
  block.tensors.push_back({role + "_bias", std::move(bias)});
  return absl::OkStatus();
}

StatusOr<Mixture> ReadMixture(const Decoder& decoder, SettingsReader& read) {
  Mixture mixture;
  TESSERA_ASSIGN_OR_RETURN(mixture.experts, read.Integer(kExperts, 1, kMaxExperts));
  TESSERA_ASSIGN_OR_RETURN(mixture.used, read.Integer(kUsed, 1, mixture.experts));
  TESSERA_ASSIGN_OR_RETURN(mixture.hidden,
                           read.IntegerOr(kExpertHidden, decoder.shape.hidden, 1, kMaxWidth));
  if (read.gguf()) {
    mixture.names = {.router = "ffn_gate_inp",
                     .gate = "ffn_gate_exps",
                     .up = "ffn_up_exps",
                     .down = "ffn_down_exps",
                     .gate_up = "ffn_gate_up_exps.weight",
                     .selection_bias = "exp_probs_b.bias",
                     .shared_gate = "ffn_gate_shexp",
                     .shared_up = "ffn_up_shexp",
                     .shared_down = "ffn_down_shexp",
                     .shared_gate_weight = ""};
  } else {
    mixture.names = {.router = "mlp.gate",
                     .gate = "mlp.experts.*.gate_proj",
                     .up = "mlp.experts.*.up_proj",
                     .down = "mlp.experts.*.down_proj",
                     .gate_up = "mlp.experts.gate_up_proj",
                     .selection_bias = "mlp.gate.e_score_correction_bias",
                     .shared_gate = "mlp.shared_experts.gate_proj",
                     .shared_up = "mlp.shared_experts.up_proj",
                     .shared_down = "mlp.shared_experts.down_proj",
                     .shared_gate_weight = ""};
  }
  return mixture;
}

Status ReadNormalisation(Mixture::Weights gguf, SettingsReader& read, Mixture& mixture) {
  const bool normalised = read.gguf() && gguf == Mixture::Weights::kNormalised;
  TESSERA_ASSIGN_OR_RETURN(const int64_t value,
                           read.IntegerOr(kNormalised, normalised ? 1 : 0, 0, 1));
  mixture.weights = value != 0 ? Mixture::Weights::kNormalised : Mixture::Weights::kScores;
  return absl::OkStatus();
}

BlockSpec MixtureSpec(const Decoder& decoder, const Mixture& mixture, int64_t layer) {
  // Norms and attributes are those of the block whose place it takes.
  BlockSpec spec = FfnSpec(decoder, layer);
  spec.type = "moe";
  Attributes& attributes = spec.attributes;
  attributes.Set("hidden", mixture.hidden);
  attributes.Set("experts", mixture.experts);
  attributes.Set("experts_used", mixture.used);
  attributes.Set("router_score", mixture.score);
  if (mixture.weights == Mixture::Weights::kNormalised) {
    attributes.Set("router_normalise", int64_t{1});
  }
  if (mixture.scale != 1.0) attributes.Set("router_scale", mixture.scale);
  if (mixture.groups > 1) {
    attributes.Set("groups", mixture.groups);
    attributes.Set("groups_used", mixture.groups_used);
    attributes.Set("group_score", mixture.group_score);
  }
  const uint64_t width = Size(decoder.shape.width), experts = Size(mixture.experts);
  for (const char* role : {"gate", "up", "down"}) Remove(spec.tensors, role);
  spec.shapes["router"] = {experts, width};
  spec.shapes["router_bias"] = {experts};
  spec.tensors.push_back({"router", mixture.names.router});
  if (mixture.shared_hidden > 0) {
    const uint64_t hidden = Size(mixture.shared_hidden);
    attributes.Set("shared_hidden", mixture.shared_hidden);
    spec.shapes["shared_gate"] = spec.shapes["shared_up"] = {hidden, width};
    spec.shapes["shared_down"] = {width, hidden};
    spec.tensors.push_back({"shared_gate", mixture.names.shared_gate});
    spec.tensors.push_back({"shared_up", mixture.names.shared_up});
    spec.tensors.push_back({"shared_down", mixture.names.shared_down});
    if (!mixture.names.shared_gate_weight.empty()) {
      spec.shapes["shared_gate_weight"] = {1, width};
      spec.tensors.push_back({"shared_gate_weight", mixture.names.shared_gate_weight});
    }
  }
  spec.take_more = [mixture, width, prefix = spec.prefix](TensorTaker& taker, BlockPlan& block) {
    return TakeExperts(taker, block, prefix, mixture, width);
  };
  return spec;
}

StatusOr<std::vector<bool>> ReadSparseLayers(SettingsReader& read, int64_t layers) {
  constexpr Key kStep = {nullptr, "decoder_sparse_step"};
  constexpr Key kDense = {nullptr, "mlp_only_layers"};
  TESSERA_ASSIGN_OR_RETURN(const int64_t step, read.IntegerOr(kStep, 1, 1, kMaxLayers));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<double> dense, read.Numbers(kDense));
  std::vector<bool> sparse(Size(layers));
  for (int64_t i = 0; i < layers; ++i) sparse[Size(i)] = (i + 1) % step == 0;
  for (const double layer : dense) {
    if (layer < 0 || layer >= static_cast<double>(layers)) {
      return InvalidSetting(read.Name(kDense), absl::StrCat("there is no layer ", layer));
    }
    sparse[static_cast<size_t>(layer)] = false;
  }
  return sparse;
}

void UseMixture(const Mixture& mixture, std::vector<bool> sparse, Decoder& decoder) {
  decoder.blocks_of_layer = [mixture, sparse = std::move(sparse)](
                                const Decoder& of,
                                int64_t layer) -> StatusOr<std::vector<BlockSpec>> {
    return std::vector<BlockSpec>{AttentionSpec(of, layer), sparse[Size(layer)]
                                                                ? MixtureSpec(of, mixture, layer)
                                                                : FfnSpec(of, layer)};
  };
}

}  // namespace tessera::blockzoo
