// DeepSeek-V2, V2-Lite and V3 (and R1, whose files are V3's): latent attention, dense layers first,
// then mixtures with shared experts and groups. Layers that predict further tokens are left out.
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/import/mixture.h"
#include "blockzoo/import/rotary_reader.h"

namespace tessera::blockzoo {
namespace {

constexpr DecoderKind kKind = {.architecture = "deepseek",
                               .gguf_rope_style = "interleaved",
                               .huggingface_rope_style = "interleaved",
                               .defaults = {.rotation = DecoderDefaults::Rotation::kNone,
                                            .heads = DecoderDefaults::Heads::kOther}};

uint64_t Size(int64_t value) { return static_cast<uint64_t>(value); }

// Sizes of a head and of what it is made from.
struct Latent {
  int64_t q_rank = 0;  // 0: queries come from the residual stream at once
  int64_t rank = 0;
  int64_t nope = 0;
  int64_t rope = 0;
  int64_t value = 0;
  double scale = 0;
};

StatusOr<Latent> ReadLatent(SettingsReader& read) {
  Latent latent;
  TESSERA_ASSIGN_OR_RETURN(
      latent.q_rank, read.IntegerOr({"attention.q_lora_rank", "q_lora_rank"}, 0, 0, kMaxWidth));
  TESSERA_ASSIGN_OR_RETURN(latent.rank,
                           read.Integer({"attention.kv_lora_rank", "kv_lora_rank"}, 1, 1 << 14));
  TESSERA_ASSIGN_OR_RETURN(
      latent.rope, read.Integer({"rope.dimension_count", "qk_rope_head_dim"}, 2, kMaxHeadDim));
  if (read.gguf()) {
    // Files of before latents were kept have the sizes of a head under its usual names.
    TESSERA_ASSIGN_OR_RETURN(const int64_t key,
                             read.Integer({.gguf = "attention.key_length_mla|attention.key_length"},
                                          latent.rope + 1, kMaxHeadDim));
    latent.nope = key - latent.rope;
  } else {
    TESSERA_ASSIGN_OR_RETURN(latent.nope,
                             read.Integer({.huggingface = "qk_nope_head_dim"}, 1, kMaxHeadDim));
  }
  TESSERA_ASSIGN_OR_RETURN(
      latent.value,
      read.Integer({"attention.value_length_mla|attention.value_length", "v_head_dim"}, 1,
                   kMaxHeadDim));
  return latent;
}

// YaRN's share of the scale of scores (the quotient of the two factors scales the angles).
Status ReadScale(SettingsReader& read, RotarySettings& rotary, Latent& latent) {
  latent.scale = 1.0 / std::sqrt(static_cast<double>(latent.nope + latent.rope));
  if (rotary.scaling != "yarn") return absl::OkStatus();
  if (read.gguf()) {
    // The converter keeps a tenth of mscale_all_dim, and no mscale: published models have them
    // equal.
    TESSERA_ASSIGN_OR_RETURN(
        const double tenth,
        read.NumberOr({.gguf = "rope.scaling.yarn_log_multiplier"}, 0.0, 0.0, 100.0));
    rotary.mscale = rotary.mscale_all_dim = tenth * 10;
  }
  if (rotary.mscale_all_dim == 0 || rotary.factor <= 1) return absl::OkStatus();
  const double mscale = 0.1 * rotary.mscale_all_dim * std::log(rotary.factor) + 1.0;
  latent.scale *= mscale * mscale;
  return absl::OkStatus();
}

// The up-projections of keys and values, apart: of each head k_b [rank, nope] and v_b [value,
// rank].
Status TakeUpProjections(TensorTaker& taker, BlockPlan& block, const std::string& prefix, bool gguf,
                         uint64_t heads, const Latent& latent) {
  const uint64_t nope = Size(latent.nope), value = Size(latent.value), rank = Size(latent.rank);
  const std::string whole =
      absl::StrCat(prefix, gguf ? "attn_kv_b.weight" : "self_attn.kv_b_proj.weight");
  if (taker.Has(prefix + "attn_k_b.weight")) {
    taker.Ignore(whole);
    TESSERA_RETURN_IF_ERROR(
        TakeStacked(taker, block, "k_b", prefix + "attn_k_b", heads, rank, nope));
    return TakeStacked(taker, block, "v_b", prefix + "attn_v_b", heads, value, rank);
  }
  TESSERA_ASSIGN_OR_RETURN(const CheckpointTensor both,
                           taker.Take(whole, {heads * (nope + value), rank}));
  TESSERA_ASSIGN_OR_RETURN(CheckpointTensor k_b, TransposedPeriods(both, nope + value, 0, nope));
  TESSERA_ASSIGN_OR_RETURN(CheckpointTensor v_b, TakePeriodicRows(both, nope + value, nope, value));
  block.tensors.push_back({"k_b", std::move(k_b)});
  block.tensors.push_back({"v_b", std::move(v_b)});
  return absl::OkStatus();
}

BlockSpec LatentSpec(const Decoder& decoder, const Latent& latent, bool gguf, int64_t layer) {
  const DecoderShape& shape = decoder.shape;
  BlockSpec spec{.type = "latent_attention",
                 .prefix = absl::StrCat(decoder.names.layer, layer, ".")};
  Attributes& attributes = spec.attributes;
  attributes.Set("width", shape.width);
  attributes.Set("q_heads", shape.q_heads);
  if (latent.q_rank > 0) attributes.Set("q_lora_rank", latent.q_rank);
  attributes.Set("kv_lora_rank", latent.rank);
  attributes.Set("qk_nope_head_dim", latent.nope);
  attributes.Set("qk_rope_head_dim", latent.rope);
  attributes.Set("v_head_dim", latent.value);
  attributes.Set("norm_epsilon", decoder.epsilon);
  attributes.Set("scale", latent.scale);
  attributes.Set("rope_style", decoder.rope_style);
  attributes.Set("rotary", int64_t{0});
  const uint64_t width = Size(shape.width), rank = Size(latent.rank);
  const uint64_t q = Size(shape.q_heads * (latent.nope + latent.rope));
  const uint64_t kv_a = Size(latent.rank + latent.rope);
  const uint64_t q_rank = Size(latent.q_rank);
  spec.shapes = {{"norm", {width}},        {"q", {q, width}},
                 {"q_a", {q_rank, width}}, {"q_a_bias", {q_rank}},
                 {"q_a_norm", {q_rank}},   {"q_b", {q, q_rank}},
                 {"kv_a", {kv_a, width}},  {"kv_a_bias", {kv_a}},
                 {"kv_a_norm", {rank}},    {"o", {width, Size(shape.q_heads * latent.value)}},
                 {"o_bias", {width}}};
  const auto add = [&](const char* role, const char* gguf_name, const char* huggingface_name) {
    spec.tensors.push_back({role, gguf ? gguf_name : huggingface_name});
  };
  add("norm", "attn_norm", "input_layernorm");
  if (latent.q_rank > 0) {
    add("q_a", "attn_q_a", "self_attn.q_a_proj");
    add("q_a_norm", "attn_q_a_norm", "self_attn.q_a_layernorm");
    add("q_b", "attn_q_b", "self_attn.q_b_proj");
  } else {
    add("q", "attn_q", "self_attn.q_proj");
  }
  add("kv_a", "attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa");
  add("kv_a_norm", "attn_kv_a_norm", "self_attn.kv_a_layernorm");
  add("o", "attn_output", "self_attn.o_proj");
  spec.take_more = [latent, gguf, heads = Size(shape.q_heads), prefix = spec.prefix](
                       TensorTaker& taker, BlockPlan& block) {
    return TakeUpProjections(taker, block, prefix, gguf, heads, latent);
  };
  return spec;
}

StatusOr<std::string> ReadScore(SettingsReader& read) {
  if (read.gguf()) {
    // 1 softmax, 2 sigmoid; V2's files of before the setting have none.
    TESSERA_ASSIGN_OR_RETURN(const int64_t function,
                             read.IntegerOr({.gguf = "expert_gating_func"}, 1, 1, 2));
    return std::string(function == 1 ? "softmax" : "sigmoid");
  }
  TESSERA_ASSIGN_OR_RETURN(const std::string name, read.checkpoint().architecture());
  constexpr Key kScore = {nullptr, "scoring_func"};
  TESSERA_ASSIGN_OR_RETURN(
      std::string score,
      read.TextOr(kScore, absl::StartsWith(name, "DeepseekV3") ? "sigmoid" : "softmax"));
  if (score != "softmax" && score != "sigmoid") {
    return UnsupportedSetting(absl::StrCat("the router's score \"", score, "\""),
                              read.Name(kScore));
  }
  return score;
}

// Which groups a row's experts may come from.
Status ReadGroups(SettingsReader& read, Mixture& mixture) {
  constexpr Key kMethod = {nullptr, "topk_method"};
  const bool v3 = mixture.score == "sigmoid";
  TESSERA_ASSIGN_OR_RETURN(const std::string method,
                           read.TextOr(kMethod, v3            ? "noaux_tc"
                                                : read.gguf() ? "group_limited_greedy"
                                                              : "greedy"));
  if (method != (v3 ? "noaux_tc" : "greedy") && (v3 || method != "group_limited_greedy")) {
    return UnsupportedSetting(
        absl::StrCat("the choice of experts \"", method, "\" by ", mixture.score),
        read.Name(kMethod));
  }
  mixture.group_score = v3 ? "top_two" : "max";
  if (method == "greedy") return absl::OkStatus();
  constexpr Key kGroups = {"expert_group_count", "n_group"};
  constexpr Key kGroupsUsed = {"expert_group_used_count", "topk_group"};
  TESSERA_ASSIGN_OR_RETURN(mixture.groups, read.IntegerOr(kGroups, 1, 1, mixture.experts));
  TESSERA_ASSIGN_OR_RETURN(mixture.groups_used,
                           read.IntegerOr(kGroupsUsed, mixture.groups, 1, mixture.groups));
  if (mixture.experts % mixture.groups != 0) {
    return InvalidSetting(read.Name(kGroups),
                          absl::StrCat("it does not divide ", mixture.experts, " experts"));
  }
  return absl::OkStatus();
}

StatusOr<Mixture> ReadExperts(const Decoder& decoder, SettingsReader& read) {
  TESSERA_ASSIGN_OR_RETURN(Mixture mixture, ReadMixture(decoder, read));
  TESSERA_ASSIGN_OR_RETURN(mixture.score, ReadScore(read));
  TESSERA_RETURN_IF_ERROR(ReadGroups(read, mixture));
  TESSERA_RETURN_IF_ERROR(ReadNormalisation(Mixture::Weights::kScores, read, mixture));
  if (mixture.score == "softmax" && mixture.weights == Mixture::Weights::kNormalised) {
    // V2's code leaves out the scale then; no published model asks for it.
    return UnsupportedSetting("normalised weights of experts chosen by softmax", "norm_topk_prob");
  }
  TESSERA_ASSIGN_OR_RETURN(
      mixture.scale,
      read.NumberOr({"expert_weights_scale", "routed_scaling_factor"}, 1.0, 0.0, 1e6));
  TESSERA_ASSIGN_OR_RETURN(const int64_t shared,
                           read.IntegerOr({"expert_shared_count", "n_shared_experts"}, 0, 0, 1024));
  mixture.shared_hidden = shared * mixture.hidden;
  TESSERA_RETURN_IF_ERROR(read.IntegerOr({nullptr, "moe_layer_freq"}, 1, 1, 1).status());
  return mixture;
}

// The layers after the last of the decoder's own predict tokens further on.
Status IgnoreFurtherLayers(SettingsReader& read, TensorTaker& taker, Decoder& decoder) {
  TESSERA_ASSIGN_OR_RETURN(const int64_t further,
                           read.IntegerOr({"nextn_predict_layers", "num_nextn_predict_layers"}, 0,
                                          0, read.gguf() ? decoder.shape.layers - 1 : 64));
  if (read.gguf()) decoder.shape.layers -= further;
  for (int64_t i = 0; i < further; ++i) {
    const std::string prefix = absl::StrCat(decoder.names.layer, decoder.shape.layers + i, ".");
    for (const std::string& name : read.checkpoint().TensorNames()) {
      if (absl::StartsWith(name, prefix)) taker.Ignore(name);
    }
  }
  return absl::OkStatus();
}

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_RETURN_IF_ERROR(IgnoreFurtherLayers(read, taker, decoder));
  TESSERA_ASSIGN_OR_RETURN(Latent latent, ReadLatent(read));
  decoder.shape.head_dim = latent.nope + latent.rope;
  TESSERA_ASSIGN_OR_RETURN(
      RotarySettings rotary,
      ReadRotary({.head_dim = latent.rope, .max_context = decoder.shape.max_context}, read, taker));
  TESSERA_RETURN_IF_ERROR(ReadScale(read, rotary, latent));
  decoder.rotary.push_back(std::move(rotary));
  TESSERA_ASSIGN_OR_RETURN(const int64_t interleaved,
                           read.IntegerOr({nullptr, "rope_interleave"}, 1, 0, 1));
  if (interleaved == 0) decoder.rope_style = "half";
  TESSERA_ASSIGN_OR_RETURN(
      const int64_t dense,
      read.IntegerOr({"leading_dense_block_count", "first_k_dense_replace"}, 0, 0, kMaxLayers));
  Mixture mixture;
  if (dense < decoder.shape.layers) {
    TESSERA_ASSIGN_OR_RETURN(mixture, ReadExperts(decoder, read));
  }
  decoder.blocks_of_layer = [latent, mixture, dense, gguf = read.gguf()](
                                const Decoder& of,
                                int64_t layer) -> StatusOr<std::vector<BlockSpec>> {
    return std::vector<BlockSpec>{
        LatentSpec(of, latent, gguf, layer),
        layer < dense ? FfnSpec(of, layer) : MixtureSpec(of, mixture, layer)};
  };
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_deepseek(ArchitectureRegistry& registry) {
  registry.Add({.name = "deepseek",
                .aliases = {"deepseek2", "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"},
                .cut = Cut});
}

}  // namespace tessera::blockzoo
