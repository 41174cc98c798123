// Mixtral: Mistral's attention, a mixture of experts in every layer. Its GGUF files are of the
// architecture "llama" with a number of experts.
#include "blockzoo/import/layer_reader.h"
#include "blockzoo/import/mixture.h"

namespace tessera::blockzoo {
namespace {

constexpr DecoderKind kKind = {
    .architecture = "mixtral",
    .gguf_rope_style = "interleaved",
    .defaults = {.kv_heads = 8, .max_context = 4096 * 32, .epsilon = 1e-5}};

// Files of before experts were one tensor have one for each.
void NameExperts(const SettingsReader& read, const TensorTaker& taker, MixtureNames& names) {
  if (!read.gguf()) {
    names.router = "block_sparse_moe.gate";
    names.gate = "block_sparse_moe.experts.*.w1";
    names.up = "block_sparse_moe.experts.*.w3";
    names.down = "block_sparse_moe.experts.*.w2";
    names.gate_up = "block_sparse_moe.experts.gate_up_proj";
  } else if (taker.Has("blk.0.ffn_gate.0.weight")) {
    names.gate = "ffn_gate.*";
    names.up = "ffn_up.*";
    names.down = "ffn_down.*";
  }
}

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_RETURN_IF_ERROR(ReadWindows(0, read, decoder));
  TESSERA_ASSIGN_OR_RETURN(Mixture mixture, ReadMixture(decoder, read));
  mixture.weights = Mixture::Weights::kNormalised;
  NameExperts(read, taker, mixture.names);
  UseMixture(mixture, std::vector<bool>(static_cast<size_t>(decoder.shape.layers), true), decoder);
  return CutDecoder(decoder, read, taker);
}

bool Claims(const Checkpoint& checkpoint) {
  if (checkpoint.format() == "gguf") {
    return checkpoint.settings().Integer("llama.expert_count", 1, INT64_MAX).ok();
  }
  const StatusOr<std::string> name = checkpoint.architecture();
  return name.ok() && *name == "MixtralForCausalLM";
}

}  // namespace

void Register_mixtral(ArchitectureRegistry& registry) {
  registry.Add({.name = "mixtral",
                .aliases = {"llama", "MixtralForCausalLM"},
                .claims = Claims,
                .cut = Cut});
}

}  // namespace tessera::blockzoo
