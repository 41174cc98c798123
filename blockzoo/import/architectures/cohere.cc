// Cohere's Command R: LayerNorm without bias, attention and feed-forward beside each other under
// one norm, neighbours rotated as pairs, scaled logits.
#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {
namespace {

constexpr Key kLogitScale = {"logit_scale", "logit_scale"};
constexpr Key kQkNorm = {nullptr, "use_qk_norm"};

void RemoveFfnNorm(const SettingsReader&, DecoderNames& names) { Remove(names.ffn, "norm"); }

constexpr DecoderKind kKind = {.architecture = "cohere",
                               .gguf_rope_style = "interleaved",
                               .huggingface_rope_style = "interleaved",
                               .norm = "layer",
                               .defaults = {.max_context = 8192,
                                            .epsilon = 1e-5,
                                            .rope_base = 500000.0,
                                            .head = Decoder::Head::kTied},
                               .rename = RemoveFfnNorm};

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  decoder.residual = Decoder::Residual::kParallel;
  TESSERA_ASSIGN_OR_RETURN(const double scale,
                           read.NumberOr(kLogitScale, read.gguf() ? 1.0 : 0.0625, 1e-6, 1e6));
  if (scale != 1.0) decoder.head_attributes.Set("scale", scale);
  // GGUF files say it by the tensors that they have.
  const bool there = taker.Has("blk.0.attn_q_norm.weight");
  TESSERA_ASSIGN_OR_RETURN(const int64_t qk_norm, read.IntegerOr(kQkNorm, there ? 1 : 0, 0, 1));
  if (qk_norm != 0) {
    decoder.attention_attributes.Set("qk_norm", std::string("head_layer"));
    Rename(decoder.names.attention, "q_norm", read.gguf() ? "attn_q_norm" : "self_attn.q_norm");
    Rename(decoder.names.attention, "k_norm", read.gguf() ? "attn_k_norm" : "self_attn.k_norm");
  }
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_cohere(ArchitectureRegistry& registry) {
  registry.Add({.name = "cohere", .aliases = {"command-r", "CohereForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
