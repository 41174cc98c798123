// OLMo 2: norms behind each block instead of before it, and over whole rows of queries and keys.
#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {
namespace {

void RenameNorms(const SettingsReader& read, DecoderNames& names) {
  const bool gguf = read.gguf();
  Remove(names.attention, "norm");
  Remove(names.ffn, "norm");
  Rename(names.attention, "post_norm", gguf ? "post_attention_norm" : "post_attention_layernorm");
  Rename(names.ffn, "post_norm", gguf ? "post_ffw_norm" : "post_feedforward_layernorm");
  Rename(names.attention, "q_norm", gguf ? "attn_q_norm" : "self_attn.q_norm");
  Rename(names.attention, "k_norm", gguf ? "attn_k_norm" : "self_attn.k_norm");
}

constexpr DecoderKind kKind = {
    .architecture = "olmo2", .defaults = {.epsilon = 1e-5}, .rename = RenameNorms};

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  decoder.attention_attributes.Set("norm", std::string("none"));
  decoder.attention_attributes.Set("qk_norm", std::string("full"));
  decoder.ffn_attributes.Set("norm", std::string("none"));
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_olmo2(ArchitectureRegistry& registry) {
  registry.Add({.name = "olmo2", .aliases = {"olmo2", "Olmo2ForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
