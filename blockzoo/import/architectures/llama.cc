// The Llama family: Llama 2, Llama 3.x, SmolLM2, TinyLlama, Mistral without a sliding window.
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "blockzoo/import/architecture.h"
#include "blockzoo/import/tensor_taker.h"

namespace tessera::blockzoo {
namespace {

constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxContext = (int64_t{1} << 31) - 1;

// The family's settings, whatever the file calls them.
struct Llama {
  int64_t layers = 0;
  int64_t width = 0;
  int64_t hidden = 0;
  int64_t vocab = 0;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_context = 0;
  double epsilon = 0;
  RotarySettings rotary;
  const char* rope_style = "";
  bool tied = false;
};

// Where the file keeps the family's tensors; LAYER names are joined to `layer_prefix` and the
// index.
struct Names {
  const char* table;
  const char* final_norm;
  const char* head;
  const char* layer_prefix;
  struct Part {
    const char* role;
    const char* name;
  };
  const char* attention_norm;
  Part attention[4];
  const char* ffn_norm;
  Part ffn[3];
};

constexpr Names kGgufNames = {
    .table = "token_embd.weight",
    .final_norm = "output_norm.weight",
    .head = "output.weight",
    .layer_prefix = "blk.",
    .attention_norm = "attn_norm.weight",
    .attention = {{"q", "attn_q"}, {"k", "attn_k"}, {"v", "attn_v"}, {"o", "attn_output"}},
    .ffn_norm = "ffn_norm.weight",
    .ffn = {{"gate", "ffn_gate"}, {"up", "ffn_up"}, {"down", "ffn_down"}},
};

constexpr Names kHuggingFaceNames = {
    .table = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .layer_prefix = "model.layers.",
    .attention_norm = "input_layernorm.weight",
    .attention = {{"q", "self_attn.q_proj"},
                  {"k", "self_attn.k_proj"},
                  {"v", "self_attn.v_proj"},
                  {"o", "self_attn.o_proj"}},
    .ffn_norm = "post_attention_layernorm.weight",
    .ffn = {{"gate", "mlp.gate_proj"}, {"up", "mlp.up_proj"}, {"down", "mlp.down_proj"}},
};

Status Unsupported(absl::string_view what, absl::string_view setting) {
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat(what, " is not supported"),
                .where = std::string(setting),
                .why = "serving the model without it would change what it computes"});
}

Status Invalid(absl::string_view setting, absl::string_view why) {
  return Error(
      absl::StatusCode::kInvalidArgument,
      {.what = absl::StrCat("the setting ", setting, " is not valid"), .why = std::string(why)});
}

// Settings under an optional prefix, with defaults.
class Reader {
 public:
  Reader(const Attributes& settings, std::string prefix)
      : settings_(settings), prefix_(std::move(prefix)) {}

  StatusOr<int64_t> Integer(absl::string_view name, int64_t low, int64_t high) const {
    return settings_.Integer(absl::StrCat(prefix_, name), low, high);
  }
  StatusOr<int64_t> IntegerOr(absl::string_view name, int64_t absent, int64_t low,
                              int64_t high) const {
    return Has(name) ? Integer(name, low, high) : absent;
  }
  StatusOr<double> Number(absl::string_view name, double low, double high) const {
    return settings_.Number(absl::StrCat(prefix_, name), low, high);
  }
  StatusOr<double> NumberOr(absl::string_view name, double absent, double low, double high) const {
    return Has(name) ? Number(name, low, high) : absent;
  }
  StatusOr<std::string> TextOr(absl::string_view name, const char* absent) const {
    return Has(name) ? settings_.Text(absl::StrCat(prefix_, name)) : std::string(absent);
  }
  bool Has(absl::string_view name) const { return settings_.Has(absl::StrCat(prefix_, name)); }

  // UNIMPLEMENTED when the setting is there and neither 0 nor `neutral`.
  Status Neutral(absl::string_view name, double neutral, absl::string_view what) const {
    if (!Has(name)) return absl::OkStatus();
    const StatusOr<double> value = Number(name, -INFINITY, INFINITY);
    if (value.ok() && (*value == 0 || *value == neutral)) return absl::OkStatus();
    return Unsupported(what, absl::StrCat(prefix_, name));
  }

 private:
  const Attributes& settings_;
  std::string prefix_;
};

Status CheckHeads(const Llama& llama) {
  if (llama.q_heads % llama.kv_heads != 0) {
    return Invalid("number of key/value heads",
                   absl::StrCat(llama.kv_heads, " does not divide ", llama.q_heads, " heads"));
  }
  if (llama.head_dim % 2 != 0 || llama.rotary.dim % 2 != 0 || llama.rotary.dim > llama.head_dim) {
    return Invalid("head size", absl::StrCat("heads of ", llama.head_dim, " with ",
                                             llama.rotary.dim, " rotated elements"));
  }
  return absl::OkStatus();
}

// GGUF's rope_freqs.weight holds Llama 3's scaling, already worked out.
Status TakeFrequencyFactors(TensorTaker& taker, RotarySettings& rotary) {
  constexpr const char* kName = "rope_freqs.weight";
  if (!taker.Has(kName)) return absl::OkStatus();
  TESSERA_ASSIGN_OR_RETURN(const CheckpointTensor tensor, taker.Take(kName, {rotary.dim / 2}));
  if (tensor.dtype != kernels::DType::kF32) return Invalid(kName, "it must be F32");
  for (size_t i = 0; i < rotary.dim / 2; ++i) {
    float factor;
    std::memcpy(&factor, tensor.bytes.data() + i * sizeof(factor), sizeof(factor));
    if (!std::isfinite(factor) || factor <= 0) return Invalid(kName, "a factor is not positive");
    rotary.frequency_factors.push_back(factor);
  }
  return absl::OkStatus();
}

Status RefuseGgufExtras(const Reader& read) {
  TESSERA_RETURN_IF_ERROR(read.Neutral("expert_count", 0, "a mixture of experts"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("attention.sliding_window", 0, "sliding-window attention"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("attn_logit_softcapping", 0, "capping of attention scores"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("final_logit_softcapping", 0, "capping of logits"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("attention.clamp_kqv", 0, "clamping of q, k and v"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("attention.max_alibi_bias", 0, "an ALiBi bias"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("attention.scale", 0, "an attention scale of its own"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("logit_scale", 1, "a logit scale"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("residual_scale", 1, "a residual scale"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("embedding_scale", 1, "an embedding scale"));
  if (read.Has("attention.causal") && !read.Integer("attention.causal", 1, 1).ok()) {
    return Unsupported("attention without a causal mask", "attention.causal");
  }
  return absl::OkStatus();
}

StatusOr<RotarySettings> GgufRotary(const Reader& read, int64_t head_dim) {
  RotarySettings rotary;
  TESSERA_ASSIGN_OR_RETURN(const int64_t dim,
                           read.IntegerOr("rope.dimension_count", head_dim, 2, kMaxHeadDim));
  rotary.dim = static_cast<uint32_t>(dim);
  TESSERA_ASSIGN_OR_RETURN(rotary.base, read.NumberOr("rope.freq_base", 10000.0, 1.0, 1e12));
  TESSERA_ASSIGN_OR_RETURN(const std::string scaling, read.TextOr("rope.scaling.type", "none"));
  if (scaling == "linear") {
    TESSERA_ASSIGN_OR_RETURN(rotary.factor, read.Number("rope.scaling.factor", 1e-3, 1e6));
  } else if (scaling == "none") {
    TESSERA_ASSIGN_OR_RETURN(rotary.factor, read.NumberOr("rope.scale_linear", 1.0, 1e-3, 1e6));
  } else {
    return Unsupported(absl::StrCat("the rotary scaling \"", scaling, "\""), "rope.scaling.type");
  }
  if (rotary.factor != 1.0) rotary.scaling = "linear";
  return rotary;
}

StatusOr<Llama> FromGguf(const Checkpoint& checkpoint, TensorTaker& taker) {
  TESSERA_ASSIGN_OR_RETURN(const std::string name, checkpoint.architecture());
  const Reader read(checkpoint.settings(), name + ".");
  TESSERA_RETURN_IF_ERROR(RefuseGgufExtras(read));
  Llama llama;
  llama.rope_style = "interleaved";
  TESSERA_ASSIGN_OR_RETURN(llama.layers, read.Integer("block_count", 1, kMaxLayers));
  TESSERA_ASSIGN_OR_RETURN(llama.width, read.Integer("embedding_length", 1, kMaxWidth));
  TESSERA_ASSIGN_OR_RETURN(llama.hidden, read.Integer("feed_forward_length", 1, kMaxWidth));
  TESSERA_ASSIGN_OR_RETURN(llama.q_heads, read.Integer("attention.head_count", 1, kMaxHeads));
  TESSERA_ASSIGN_OR_RETURN(llama.kv_heads,
                           read.IntegerOr("attention.head_count_kv", llama.q_heads, 1, kMaxHeads));
  TESSERA_ASSIGN_OR_RETURN(
      llama.head_dim,
      read.IntegerOr("attention.key_length", llama.width / llama.q_heads, 2, kMaxHeadDim));
  TESSERA_RETURN_IF_ERROR(
      read.IntegerOr("attention.value_length", llama.head_dim, llama.head_dim, llama.head_dim)
          .status());
  TESSERA_ASSIGN_OR_RETURN(llama.max_context, read.Integer("context_length", 1, kMaxContext));
  TESSERA_ASSIGN_OR_RETURN(llama.epsilon,
                           read.Number("attention.layer_norm_rms_epsilon", 0.0, 0.1));
  TESSERA_ASSIGN_OR_RETURN(const CheckpointTensor table, checkpoint.Tensor(kGgufNames.table));
  TESSERA_ASSIGN_OR_RETURN(
      llama.vocab,
      read.IntegerOr("vocab_size", static_cast<int64_t>(table.shape[0]), 1, kMaxVocab));
  llama.tied = !taker.Has(kGgufNames.head);
  TESSERA_ASSIGN_OR_RETURN(llama.rotary, GgufRotary(read, llama.head_dim));
  TESSERA_RETURN_IF_ERROR(CheckHeads(llama));
  TESSERA_RETURN_IF_ERROR(TakeFrequencyFactors(taker, llama.rotary));
  taker.IgnoreEndingWith(".rope_freqs.weight");
  taker.IgnoreEndingWith(".attn_rot_embd.weight");
  return llama;
}

Status RefuseHuggingFaceExtras(const Reader& read, int64_t max_context) {
  if (read.Has("quantization_config.quant_method")) {
    TESSERA_ASSIGN_OR_RETURN(const std::string method,
                             read.TextOr("quantization_config.quant_method", ""));
    return Unsupported(absl::StrCat("the quantization \"", method, "\""), "quantization_config");
  }
  TESSERA_ASSIGN_OR_RETURN(const std::string activation, read.TextOr("hidden_act", "silu"));
  if (activation != "silu") {
    return Unsupported(absl::StrCat("the activation \"", activation, "\""), "hidden_act");
  }
  // A window as long as the context hides nothing.
  if (read.Has("sliding_window") && !read.Integer("sliding_window", max_context, INT64_MAX).ok() &&
      !(read.Has("use_sliding_window") && read.Integer("use_sliding_window", 0, 0).ok())) {
    return Unsupported("sliding-window attention", "sliding_window");
  }
  TESSERA_RETURN_IF_ERROR(read.Neutral("num_local_experts", 0, "a mixture of experts"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("attn_logit_softcapping", 0, "capping of attention scores"));
  TESSERA_RETURN_IF_ERROR(read.Neutral("final_logit_softcapping", 0, "capping of logits"));
  return read.Neutral("partial_rotary_factor", 1, "rotating a part of each head");
}

StatusOr<RotarySettings> HuggingFaceRotary(const Reader& read, int64_t head_dim) {
  RotarySettings rotary;
  rotary.dim = static_cast<uint32_t>(head_dim);
  // Newer files keep both the base and the scaling under rope_parameters.
  const bool newer =
      read.Has("rope_parameters.rope_type") || read.Has("rope_parameters.rope_theta");
  const std::string group = newer ? "rope_parameters." : "rope_scaling.";
  TESSERA_ASSIGN_OR_RETURN(
      rotary.base,
      read.NumberOr(newer && read.Has("rope_parameters.rope_theta") ? "rope_parameters.rope_theta"
                                                                    : "rope_theta",
                    10000.0, 1.0, 1e12));
  const std::string type_name = read.Has(group + "rope_type") ? "rope_type" : "type";
  TESSERA_ASSIGN_OR_RETURN(const std::string type, read.TextOr(group + type_name, "default"));
  if (type == "default") return rotary;
  if (type != "linear" && type != "llama3") {
    return Unsupported(absl::StrCat("the rotary scaling \"", type, "\""), group + type_name);
  }
  rotary.scaling = type;
  TESSERA_ASSIGN_OR_RETURN(rotary.factor, read.Number(group + "factor", 1e-3, 1e6));
  if (type == "linear") return rotary;
  TESSERA_ASSIGN_OR_RETURN(rotary.low_freq_factor,
                           read.Number(group + "low_freq_factor", 1e-6, 1e6));
  TESSERA_ASSIGN_OR_RETURN(rotary.high_freq_factor,
                           read.Number(group + "high_freq_factor", 1e-6, 1e6));
  if (rotary.high_freq_factor <= rotary.low_freq_factor) {
    return Invalid(group + "high_freq_factor", "it must be above low_freq_factor");
  }
  TESSERA_ASSIGN_OR_RETURN(
      const int64_t original,
      read.Integer(group + "original_max_position_embeddings", 1, kMaxContext));
  rotary.original_context = static_cast<uint64_t>(original);
  return rotary;
}

StatusOr<Llama> FromHuggingFace(const Checkpoint& checkpoint, TensorTaker& taker) {
  const Reader read(checkpoint.settings(), "");
  Llama llama;
  llama.rope_style = "half";
  TESSERA_ASSIGN_OR_RETURN(llama.layers, read.Integer("num_hidden_layers", 1, kMaxLayers));
  TESSERA_ASSIGN_OR_RETURN(llama.width, read.Integer("hidden_size", 1, kMaxWidth));
  TESSERA_ASSIGN_OR_RETURN(llama.hidden, read.Integer("intermediate_size", 1, kMaxWidth));
  TESSERA_ASSIGN_OR_RETURN(llama.vocab, read.Integer("vocab_size", 1, kMaxVocab));
  TESSERA_ASSIGN_OR_RETURN(llama.q_heads, read.Integer("num_attention_heads", 1, kMaxHeads));
  TESSERA_ASSIGN_OR_RETURN(llama.kv_heads,
                           read.IntegerOr("num_key_value_heads", llama.q_heads, 1, kMaxHeads));
  TESSERA_ASSIGN_OR_RETURN(llama.head_dim,
                           read.IntegerOr("head_dim", llama.width / llama.q_heads, 2, kMaxHeadDim));
  TESSERA_ASSIGN_OR_RETURN(llama.max_context,
                           read.IntegerOr("max_position_embeddings", 2048, 1, kMaxContext));
  TESSERA_ASSIGN_OR_RETURN(llama.epsilon, read.NumberOr("rms_norm_eps", 1e-6, 0.0, 0.1));
  TESSERA_RETURN_IF_ERROR(RefuseHuggingFaceExtras(read, llama.max_context));
  TESSERA_ASSIGN_OR_RETURN(const int64_t tied, read.IntegerOr("tie_word_embeddings", 0, 0, 1));
  llama.tied = tied != 0 || !taker.Has(kHuggingFaceNames.head);
  TESSERA_ASSIGN_OR_RETURN(llama.rotary, HuggingFaceRotary(read, llama.head_dim));
  TESSERA_RETURN_IF_ERROR(CheckHeads(llama));
  if (llama.tied) taker.Ignore(kHuggingFaceNames.head);
  taker.IgnoreEndingWith(".rotary_emb.inv_freq");
  return llama;
}

// A projection of [out, in] with its optional bias, as roles "q" and "q_bias".
Status AddProjection(TensorTaker& taker, BlockPlan& block, const Names::Part& part,
                     const std::string& layer, uint64_t out, uint64_t in) {
  const std::string name = layer + part.name;
  TESSERA_RETURN_IF_ERROR(taker.AddPart(block, part.role, name + ".weight", {out, in}));
  return taker.AddPartIfThere(block, absl::StrCat(part.role, "_bias").c_str(), name + ".bias",
                              {out});
}

StatusOr<BlockPlan> AttentionPlan(const Llama& llama, const Names& names, const std::string& layer,
                                  TensorTaker& taker) {
  BlockPlan block{.type = "attention"};
  block.attributes.Set("width", llama.width);
  block.attributes.Set("q_heads", llama.q_heads);
  block.attributes.Set("kv_heads", llama.kv_heads);
  block.attributes.Set("head_dim", llama.head_dim);
  block.attributes.Set("norm_epsilon", llama.epsilon);
  block.attributes.Set("rope_style", std::string(llama.rope_style));
  block.attributes.Set("rotary", int64_t{0});
  const auto width = static_cast<uint64_t>(llama.width);
  const auto q_width = static_cast<uint64_t>(llama.q_heads * llama.head_dim);
  const auto kv_width = static_cast<uint64_t>(llama.kv_heads * llama.head_dim);
  TESSERA_RETURN_IF_ERROR(taker.AddPart(block, "norm", layer + names.attention_norm, {width}));
  const uint64_t shapes[4][2] = {
      {q_width, width}, {kv_width, width}, {kv_width, width}, {width, q_width}};
  for (int i = 0; i < 4; ++i) {
    TESSERA_RETURN_IF_ERROR(
        AddProjection(taker, block, names.attention[i], layer, shapes[i][0], shapes[i][1]));
  }
  return block;
}

StatusOr<BlockPlan> FfnPlan(const Llama& llama, const Names& names, const std::string& layer,
                            TensorTaker& taker) {
  BlockPlan block{.type = "ffn"};
  block.attributes.Set("width", llama.width);
  block.attributes.Set("hidden", llama.hidden);
  block.attributes.Set("norm_epsilon", llama.epsilon);
  block.attributes.Set("activation", std::string("silu"));
  const auto width = static_cast<uint64_t>(llama.width);
  const auto hidden = static_cast<uint64_t>(llama.hidden);
  TESSERA_RETURN_IF_ERROR(taker.AddPart(block, "norm", layer + names.ffn_norm, {width}));
  const uint64_t shapes[3][2] = {{hidden, width}, {hidden, width}, {width, hidden}};
  for (int i = 0; i < 3; ++i) {
    TESSERA_RETURN_IF_ERROR(
        AddProjection(taker, block, names.ffn[i], layer, shapes[i][0], shapes[i][1]));
  }
  return block;
}

StatusOr<BlockPlan> HeadPlan(const Llama& llama, const Names& names, TensorTaker& taker) {
  BlockPlan block{.type = "lm_head"};
  block.attributes.Set("width", llama.width);
  block.attributes.Set("vocab", llama.vocab);
  block.attributes.Set("norm_epsilon", llama.epsilon);
  const auto width = static_cast<uint64_t>(llama.width);
  const auto vocab = static_cast<uint64_t>(llama.vocab);
  TESSERA_RETURN_IF_ERROR(taker.AddPart(block, "norm", names.final_norm, {width}));
  TESSERA_RETURN_IF_ERROR(
      taker.AddPart(block, "head", llama.tied ? names.table : names.head, {vocab, width}));
  return block;
}

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  const bool gguf = checkpoint.format() == "gguf";
  const Names& names = gguf ? kGgufNames : kHuggingFaceNames;
  TESSERA_ASSIGN_OR_RETURN(const Llama llama,
                           gguf ? FromGguf(checkpoint, taker) : FromHuggingFace(checkpoint, taker));
  ChainPlan plan;
  plan.chain.architecture = "llama";
  plan.chain.width = static_cast<uint64_t>(llama.width);
  plan.chain.vocab = static_cast<uint64_t>(llama.vocab);
  plan.chain.max_context = static_cast<uint64_t>(llama.max_context);
  plan.chain.rotary = {llama.rotary};
  BlockPlan embedding{.type = "embedding"};
  embedding.attributes.Set("width", llama.width);
  embedding.attributes.Set("vocab", llama.vocab);
  TESSERA_RETURN_IF_ERROR(
      taker.AddPart(embedding, "table", names.table, {plan.chain.vocab, plan.chain.width}));
  plan.blocks.push_back(std::move(embedding));
  for (int64_t i = 0; i < llama.layers; ++i) {
    const std::string layer = absl::StrCat(names.layer_prefix, i, ".");
    TESSERA_ASSIGN_OR_RETURN(BlockPlan attention, AttentionPlan(llama, names, layer, taker));
    plan.blocks.push_back(std::move(attention));
    TESSERA_ASSIGN_OR_RETURN(BlockPlan ffn, FfnPlan(llama, names, layer, taker));
    plan.blocks.push_back(std::move(ffn));
  }
  TESSERA_ASSIGN_OR_RETURN(BlockPlan head, HeadPlan(llama, names, taker));
  plan.blocks.push_back(std::move(head));
  TESSERA_RETURN_IF_ERROR(taker.CheckNothingLeft());
  return plan;
}

}  // namespace

void Register_llama(ArchitectureRegistry& registry) {
  registry.Add({.name = "llama",
                .aliases = {"llama", "LlamaForCausalLM", "MistralForCausalLM"},
                .cut = Cut});
}

}  // namespace tessera::blockzoo
