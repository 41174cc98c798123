// Qwen3 with experts: norms of each head of queries and keys, a mixture in most layers.
#include "blockzoo/import/layer_reader.h"
#include "blockzoo/import/mixture.h"

namespace tessera::blockzoo {
namespace {

void RenameNorms(const SettingsReader& read, DecoderNames& names) {
  Rename(names.attention, "q_norm", read.gguf() ? "attn_q_norm" : "self_attn.q_norm");
  Rename(names.attention, "k_norm", read.gguf() ? "attn_k_norm" : "self_attn.k_norm");
}

constexpr DecoderKind kKind = {.architecture = "qwen3_moe",
                               .defaults = {.kv_heads = 4, .max_context = 32768},
                               .rename = RenameNorms};

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_RETURN_IF_ERROR(ReadWindows(0, read, decoder));
  decoder.attention_attributes.Set("qk_norm", std::string("head"));
  TESSERA_ASSIGN_OR_RETURN(Mixture mixture, ReadMixture(decoder, read));
  // The converter leaves it out: every published model normalises.
  TESSERA_RETURN_IF_ERROR(ReadNormalisation(Mixture::Weights::kNormalised, read, mixture));
  TESSERA_ASSIGN_OR_RETURN(std::vector<bool> sparse, ReadSparseLayers(read, decoder.shape.layers));
  UseMixture(mixture, std::move(sparse), decoder);
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_qwen3_moe(ArchitectureRegistry& registry) {
  registry.Add({.name = "qwen3_moe", .aliases = {"qwen3moe", "Qwen3MoeForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
