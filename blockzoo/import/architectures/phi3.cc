// Phi-3, Phi-3.5 and Phi-4: projections in one tensor, LongRoPE, in Phi-4-mini a part of each head
// rotated.
#include "blockzoo/import/layer_reader.h"

namespace tessera::blockzoo {
namespace {

void RenameFused(const SettingsReader& read, DecoderNames& names) {
  for (const char* role : {"q", "k", "v"}) Remove(names.attention, role);
  for (const char* role : {"gate", "up"}) Remove(names.ffn, role);
  Rename(names.attention, "q,k,v", read.gguf() ? "attn_qkv" : "self_attn.qkv_proj");
  Rename(names.ffn, "gate,up", read.gguf() ? "ffn_up" : "mlp.gate_up_proj");
}

constexpr DecoderKind kKind = {.architecture = "phi3",
                               .defaults = {.max_context = 4096, .epsilon = 1e-5},
                               .rename = RenameFused};

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_RETURN_IF_ERROR(ReadWindows(0, read, decoder));
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_phi3(ArchitectureRegistry& registry) {
  registry.Add({.name = "phi3", .aliases = {"phi3", "Phi3ForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
