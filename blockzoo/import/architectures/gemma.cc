// Gemma 1, 2 and 3 (text): scaled embeddings, norms of 1 + w; from 2 on norms around each block,
// alternate windows and caps; in 3 norms of queries and keys, and a rotary base for each kind of
// layer.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "blockzoo/import/layer_reader.h"
#include "blockzoo/import/rotary_reader.h"

namespace tessera::blockzoo {
namespace {

constexpr Key kCap = {"attn_logit_softcapping", "attn_logit_softcapping"};
constexpr Key kFinalCap = {"final_logit_softcapping", "final_logit_softcapping"};
constexpr Key kQueryScalar = {nullptr, "query_pre_attn_scalar"};

// GGUF files hold 1 + w.
void ShiftNorms(const SettingsReader& read, DecoderNames& names) {
  if (read.gguf()) return;
  for (TensorRules* rules : {&names.attention, &names.ffn, &names.head}) {
    for (TensorRule& rule : *rules) {
      if (rule.roles.ends_with("norm")) rule.form = TensorForm::kPlusOne;
    }
  }
}

void AddNormsAround(const SettingsReader& read, DecoderNames& names) {
  if (read.gguf()) {
    Rename(names.attention, "post_norm", "post_attention_norm");
    Rename(names.ffn, "post_norm", "post_ffw_norm");
    return;
  }
  Rename(names.attention, "post_norm", "post_attention_layernorm");
  Rename(names.ffn, "norm", "pre_feedforward_layernorm");
  Rename(names.ffn, "post_norm", "post_feedforward_layernorm");
}

void RenameGemma2(const SettingsReader& read, DecoderNames& names) {
  AddNormsAround(read, names);
  ShiftNorms(read, names);
}

// Files of the model that also sees images keep the text model under a name of its own.
void MoveToTextModel(const SettingsReader& read, DecoderNames& names) {
  for (const char* prefix : {"language_model.model.", "model.language_model."}) {
    const std::string table = absl::StrCat(prefix, "embed_tokens");
    if (!read.checkpoint().Tensor(table + ".weight").ok()) continue;
    Rename(names.embedding, "table", table);
    Rename(names.head, "norm", absl::StrCat(prefix, "norm"));
    names.layer = absl::StrCat(prefix, "layers.");
  }
}

void RenameGemma3(const SettingsReader& read, DecoderNames& names) {
  MoveToTextModel(read, names);
  AddNormsAround(read, names);
  Rename(names.attention, "q_norm", read.gguf() ? "attn_q_norm" : "self_attn.q_norm");
  Rename(names.attention, "k_norm", read.gguf() ? "attn_k_norm" : "self_attn.k_norm");
  ShiftNorms(read, names);
}

constexpr DecoderKind Kind(const char* architecture, int64_t q_heads, int64_t kv_heads,
                           int64_t vocab, int64_t max_context, double rope_base,
                           const char* rotary_group,
                           void (*rename)(const SettingsReader& read, DecoderNames& names)) {
  return {.architecture = architecture,
          .defaults = {.q_heads = q_heads,
                       .kv_heads = kv_heads,
                       .head_dim = 256,
                       .vocab = vocab,
                       .max_context = max_context,
                       .rope_base = rope_base,
                       .rotary_group = rotary_group,
                       .head = Decoder::Head::kTied,
                       .activation = "gelu_pytorch_tanh"},
          .rename = rename};
}
constexpr DecoderKind kGemma = Kind("gemma", 16, 16, 256000, 8192, 10000.0, "", ShiftNorms);
constexpr DecoderKind kGemma2 = Kind("gemma2", 8, 4, 256000, 8192, 10000.0, "", RenameGemma2);
constexpr DecoderKind kGemma3 =
    Kind("gemma3", 8, 4, 262208, 131072, 1e6, "full_attention", RenameGemma3);

void ScaleEmbeddings(Decoder& decoder) {
  decoder.embedding_attributes.Set("scale", std::sqrt(static_cast<double>(decoder.shape.width)));
}

// Scores are divided by the square root of a number of the settings. GGUF files do not hold it; it
// is the head's size but for the model of `wide_layers` layers, where it is the width of a head's
// share of the stream.
Status ReadScoreScale(int64_t wide_layers, SettingsReader& read, Decoder& decoder) {
  const DecoderShape& shape = decoder.shape;
  const double usual = read.gguf() && shape.layers == wide_layers
                           ? static_cast<double>(shape.width / shape.q_heads)
                       : read.gguf() ? static_cast<double>(shape.head_dim)
                                     : 256.0;
  TESSERA_ASSIGN_OR_RETURN(const double scalar, read.NumberOr(kQueryScalar, usual, 1e-3, 1e6));
  if (scalar != static_cast<double>(shape.head_dim)) {
    decoder.attention_attributes.Set("scale", 1.0 / std::sqrt(scalar));
  }
  return absl::OkStatus();
}

// `usual` is what a GGUF file without the setting means.
Status ReadCap(const Key& key, double usual, SettingsReader& read, Attributes& attributes) {
  TESSERA_ASSIGN_OR_RETURN(const double cap,
                           read.NumberOr(key, read.gguf() ? usual : 0.0, 0.0, 1e6));
  if (cap > 0) attributes.Set("softcap", cap);
  return absl::OkStatus();
}

StatusOr<ChainPlan> CutGemma(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kGemma, read, taker));
  // Early files name another activation than the one that the model was trained with.
  decoder.activation = "gelu_tanh";
  ScaleEmbeddings(decoder);
  return CutDecoder(decoder, read, taker);
}

StatusOr<ChainPlan> CutGemma2(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kGemma2, read, taker));
  ScaleEmbeddings(decoder);
  TESSERA_RETURN_IF_ERROR(ReadScoreScale(46, read, decoder));
  TESSERA_RETURN_IF_ERROR(ReadCap(kCap, 50.0, read, decoder.attention_attributes));
  TESSERA_RETURN_IF_ERROR(ReadCap(kFinalCap, 30.0, read, decoder.head_attributes));
  TESSERA_RETURN_IF_ERROR(ReadWindows(2, read, decoder));
  return CutDecoder(decoder, read, taker);
}

// Layers with a window rotate by a base of their own, and without the scaling of the others.
Status ReadLocalRotary(SettingsReader& read, TensorTaker& taker, Decoder& decoder) {
  constexpr Key kLocalBase = {"rope.freq_base_swa", "rope_local_base_freq"};
  RotaryQuery query = {.head_dim = decoder.shape.head_dim,
                       .max_context = decoder.shape.max_context,
                       .base_key = kLocalBase,
                       .scaling = RotaryQuery::Scaling::kNone,
                       .group = "sliding_attention"};
  TESSERA_ASSIGN_OR_RETURN(RotarySettings local, ReadRotary(query, read, taker));
  decoder.rotary.push_back(std::move(local));
  for (LayerAttention& layer : decoder.layers) {
    layer.rotary = layer.kind == LayerAttention::Kind::kLocal ? 1 : 0;
  }
  return absl::OkStatus();
}

StatusOr<ChainPlan> CutGemma3(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kGemma3, read, taker));
  ScaleEmbeddings(decoder);
  decoder.attention_attributes.Set("qk_norm", std::string("head"));
  TESSERA_RETURN_IF_ERROR(ReadScoreScale(62, read, decoder));
  TESSERA_RETURN_IF_ERROR(ReadCap(kCap, 0.0, read, decoder.attention_attributes));
  TESSERA_RETURN_IF_ERROR(ReadCap(kFinalCap, 0.0, read, decoder.head_attributes));
  TESSERA_RETURN_IF_ERROR(ReadWindows(6, read, decoder));
  TESSERA_RETURN_IF_ERROR(ReadLocalRotary(read, taker, decoder));
  // What sees images is left out: it changes nothing of an answer to text.
  for (const char* prefix : {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                             "model.multi_modal_projector."}) {
    taker.IgnoreStartingWith(prefix);
  }
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_gemma(ArchitectureRegistry& registry) {
  registry.Add({.name = "gemma", .aliases = {"gemma", "GemmaForCausalLM"}, .cut = CutGemma});
  registry.Add({.name = "gemma2", .aliases = {"gemma2", "Gemma2ForCausalLM"}, .cut = CutGemma2});
  registry.Add({.name = "gemma3",
                .aliases = {"gemma3", "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"},
                .cut = CutGemma3});
}

}  // namespace tessera::blockzoo
