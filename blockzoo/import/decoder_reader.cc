// ReadDecoder: what the settings of a decoder have in common, and the usual names of its tensors.
#include <utility>

#include "absl/strings/str_cat.h"
#include "blockzoo/import/layer_reader.h"
#include "blockzoo/import/rotary_reader.h"

namespace tessera::blockzoo {
namespace {

using Head = Decoder::Head;

constexpr Key kLayers = {"block_count", "num_hidden_layers|n_layer"};
constexpr Key kWidth = {"embedding_length", "hidden_size|n_embd"};
constexpr Key kHidden = {"feed_forward_length", "intermediate_size|n_inner"};
constexpr Key kQHeads = {"attention.head_count", "num_attention_heads|n_head"};
constexpr Key kKvHeads = {"attention.head_count_kv", "num_key_value_heads"};
constexpr Key kHeadDim = {"attention.key_length", "head_dim"};
constexpr Key kValueDim = {"attention.value_length", nullptr};
constexpr Key kContext = {"context_length", "max_position_embeddings|n_positions"};
constexpr Key kRmsEpsilon = {"attention.layer_norm_rms_epsilon", "rms_norm_eps"};
constexpr Key kLayerEpsilon = {"attention.layer_norm_epsilon", "layer_norm_eps|layer_norm_epsilon"};
constexpr Key kVocab = {"vocab_size", "vocab_size"};
constexpr Key kTied = {nullptr, "tie_word_embeddings"};
constexpr Key kActivation = {nullptr, "hidden_activation|hidden_act|activation_function"};

const TensorRule* RuleOf(const TensorRules& rules, absl::string_view roles) {
  for (const TensorRule& rule : rules) {
    if (rule.roles == roles) return &rule;
  }
  return nullptr;
}

// A whole number from 1 to `high`; Hugging Face files may leave it out where `usual` is not 0.
StatusOr<int64_t> RequiredUnless(int64_t usual, const Key& key, int64_t high,
                                 SettingsReader& read) {
  return usual > 0 && !read.gguf() ? read.IntegerOr(key, usual, 1, high)
                                   : read.Integer(key, 1, high);
}

Status ReadShape(const DecoderDefaults& defaults, SettingsReader& read, DecoderShape& shape) {
  TESSERA_ASSIGN_OR_RETURN(shape.layers, read.Integer(kLayers, 1, kMaxLayers));
  TESSERA_ASSIGN_OR_RETURN(shape.width, read.Integer(kWidth, 1, kMaxWidth));
  TESSERA_ASSIGN_OR_RETURN(
      shape.hidden,
      defaults.hidden_widths > 0
          ? read.IntegerOr(kHidden, defaults.hidden_widths * shape.width, 1, kMaxWidth)
          : read.Integer(kHidden, 1, kMaxWidth));
  TESSERA_ASSIGN_OR_RETURN(shape.q_heads,
                           RequiredUnless(defaults.q_heads, kQHeads, kMaxHeads, read));
  TESSERA_ASSIGN_OR_RETURN(
      shape.kv_heads,
      read.IntegerOr(kKvHeads, defaults.kv_heads > 0 ? defaults.kv_heads : shape.q_heads, 1,
                     kMaxHeads));
  if (defaults.heads == DecoderDefaults::Heads::kEqual) {
    const int64_t head_dim =
        defaults.head_dim > 0 && !read.gguf() ? defaults.head_dim : shape.width / shape.q_heads;
    TESSERA_ASSIGN_OR_RETURN(shape.head_dim, read.IntegerOr(kHeadDim, head_dim, 2, kMaxHeadDim));
    TESSERA_RETURN_IF_ERROR(
        read.IntegerOr(kValueDim, shape.head_dim, shape.head_dim, shape.head_dim).status());
  }
  if (read.gguf()) {
    TESSERA_ASSIGN_OR_RETURN(shape.max_context, read.Integer(kContext, 1, kMaxContext));
  } else {
    TESSERA_ASSIGN_OR_RETURN(shape.max_context,
                             read.IntegerOr(kContext, defaults.max_context, 1, kMaxContext));
  }
  return absl::OkStatus();
}

// GGUF files leave the vocabulary's size to the table.
Status ReadVocab(const DecoderDefaults& defaults, const Decoder& decoder, SettingsReader& read,
                 int64_t& vocab) {
  if (!read.gguf()) {
    TESSERA_ASSIGN_OR_RETURN(vocab, RequiredUnless(defaults.vocab, kVocab, kMaxVocab, read));
    return absl::OkStatus();
  }
  const TensorRule* rule = RuleOf(decoder.names.embedding, "table");
  TESSERA_ASSIGN_OR_RETURN(const CheckpointTensor table,
                           read.checkpoint().Tensor(rule->name + ".weight"));
  TESSERA_ASSIGN_OR_RETURN(
      vocab, read.IntegerOr(kVocab, static_cast<int64_t>(table.shape[0]), 1, kMaxVocab));
  return absl::OkStatus();
}

// Sets whether the head is the table, and ignores a copy of it.
Status ReadHead(const DecoderDefaults& defaults, SettingsReader& read, TensorTaker& taker,
                Decoder& decoder) {
  const std::string name = RuleOf(decoder.names.head, "head")->name + ".weight";
  const bool there = taker.Has(name);
  TESSERA_ASSIGN_OR_RETURN(const int64_t tied,
                           read.gguf()
                               ? StatusOr<int64_t>(0)
                               : read.IntegerOr(kTied, defaults.head == Head::kTied ? 1 : 0, 0, 1));
  decoder.head = tied != 0 || !there ? Head::kTied : Head::kOwn;
  if (tied != 0) taker.Ignore(name);
  return absl::OkStatus();
}

Status ReadActivation(const DecoderDefaults& defaults, SettingsReader& read, Decoder& decoder) {
  TESSERA_ASSIGN_OR_RETURN(const std::string activation,
                           read.TextOr(kActivation, defaults.activation));
  TESSERA_ASSIGN_OR_RETURN(decoder.activation, ActivationName(activation, read.Name(kActivation)));
  return absl::OkStatus();
}

}  // namespace

DecoderNames UsualNames(const SettingsReader& read) {
  if (read.gguf()) {
    return {
        .embedding = {{"table", "token_embd"}},
        .head = {{"norm", "output_norm"}, {"head", "output"}},
        .attention = {{"norm", "attn_norm"},
                      {"q", "attn_q"},
                      {"k", "attn_k"},
                      {"v", "attn_v"},
                      {"o", "attn_output"}},
        .ffn = {{"norm", "ffn_norm"}, {"gate", "ffn_gate"}, {"up", "ffn_up"}, {"down", "ffn_down"}},
        .layer = "blk."};
  }
  return {.embedding = {{"table", "model.embed_tokens"}},
          .head = {{"norm", "model.norm"}, {"head", "lm_head"}},
          .attention = {{"norm", "input_layernorm"},
                        {"q", "self_attn.q_proj"},
                        {"k", "self_attn.k_proj"},
                        {"v", "self_attn.v_proj"},
                        {"o", "self_attn.o_proj"}},
          .ffn = {{"norm", "post_attention_layernorm"},
                  {"gate", "mlp.gate_proj"},
                  {"up", "mlp.up_proj"},
                  {"down", "mlp.down_proj"}},
          .layer = "model.layers."};
}

void Rename(TensorRules& rules, absl::string_view roles, absl::string_view name, TensorForm form) {
  for (TensorRule& rule : rules) {
    if (rule.roles != roles) continue;
    rule.name = std::string(name);
    rule.form = form;
    return;
  }
  rules.push_back({std::string(roles), std::string(name), form});
}

void Remove(TensorRules& rules, absl::string_view roles) {
  std::erase_if(rules, [roles](const TensorRule& rule) { return rule.roles == roles; });
}

StatusOr<std::string> ActivationName(absl::string_view activation, absl::string_view setting) {
  static constexpr std::pair<const char*, const char*> kNames[] = {
      {"silu", "silu"},          {"swish", "silu"},          {"gelu", "gelu"},
      {"gelu_new", "gelu_tanh"}, {"gelu_fast", "gelu_tanh"}, {"gelu_pytorch_tanh", "gelu_tanh"},
      {"relu", "relu"},          {"relu2", "relu2"}};
  for (const auto& [name, ours] : kNames) {
    if (activation == name) return std::string(ours);
  }
  return UnsupportedSetting(absl::StrCat("the activation \"", activation, "\""), setting);
}

StatusOr<Decoder> ReadDecoder(const DecoderKind& kind, SettingsReader& read, TensorTaker& taker) {
  const DecoderDefaults& defaults = kind.defaults;
  Decoder decoder;
  decoder.architecture = kind.architecture;
  decoder.names = UsualNames(read);
  if (kind.rename != nullptr) kind.rename(read, decoder.names);
  decoder.rope_style = read.gguf() ? kind.gguf_rope_style : kind.huggingface_rope_style;
  TESSERA_RETURN_IF_ERROR(ReadShape(defaults, read, decoder.shape));
  TESSERA_RETURN_IF_ERROR(HonourIdleWindow(read, decoder.shape));
  decoder.norm = kind.norm;
  const Key& epsilon = decoder.norm == "layer" ? kLayerEpsilon : kRmsEpsilon;
  TESSERA_ASSIGN_OR_RETURN(decoder.epsilon,
                           read.gguf() ? read.Number(epsilon, 0.0, 0.1)
                                       : read.NumberOr(epsilon, defaults.epsilon, 0.0, 0.1));
  TESSERA_RETURN_IF_ERROR(ReadVocab(defaults, decoder, read, decoder.shape.vocab));
  TESSERA_RETURN_IF_ERROR(ReadActivation(defaults, read, decoder));
  TESSERA_RETURN_IF_ERROR(ReadHead(defaults, read, taker, decoder));
  if (defaults.rotation == DecoderDefaults::Rotation::kNone) return decoder;
  TESSERA_ASSIGN_OR_RETURN(RotarySettings rotary,
                           ReadRotary({.head_dim = decoder.shape.head_dim,
                                       .max_context = decoder.shape.max_context,
                                       .base = defaults.rope_base,
                                       .partial = defaults.partial_rotary,
                                       .group = defaults.rotary_group},
                                      read, taker));
  decoder.rotary.push_back(std::move(rotary));
  return decoder;
}

}  // namespace tessera::blockzoo
