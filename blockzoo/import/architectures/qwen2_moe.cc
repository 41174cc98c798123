// Qwen 1.5 and 2 with experts: Qwen2's attention, experts of which one is shared and weighted.
#include "blockzoo/import/layer_reader.h"
#include "blockzoo/import/mixture.h"

namespace tessera::blockzoo {
namespace {

constexpr DecoderKind kKind = {.architecture = "qwen2_moe",
                               .defaults = {.kv_heads = 16, .max_context = 32768}};
constexpr Key kSharedHidden = {"expert_shared_feed_forward_length",
                               "shared_expert_intermediate_size"};

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_RETURN_IF_ERROR(ReadWindows(0, read, decoder));
  TESSERA_ASSIGN_OR_RETURN(Mixture mixture, ReadMixture(decoder, read));
  TESSERA_RETURN_IF_ERROR(ReadNormalisation(Mixture::Weights::kScores, read, mixture));
  TESSERA_ASSIGN_OR_RETURN(mixture.shared_hidden,
                           read.gguf()
                               ? read.IntegerOr(kSharedHidden, decoder.shape.hidden, 1, kMaxWidth)
                               : read.Integer(kSharedHidden, 1, kMaxWidth));
  MixtureNames& names = mixture.names;
  names.shared_gate_weight = read.gguf() ? "ffn_gate_inp_shexp" : "mlp.shared_expert_gate";
  if (!read.gguf()) {
    names.shared_gate = "mlp.shared_expert.gate_proj";
    names.shared_up = "mlp.shared_expert.up_proj";
    names.shared_down = "mlp.shared_expert.down_proj";
  }
  TESSERA_ASSIGN_OR_RETURN(std::vector<bool> sparse, ReadSparseLayers(read, decoder.shape.layers));
  UseMixture(mixture, std::move(sparse), decoder);
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_qwen2_moe(ArchitectureRegistry& registry) {
  registry.Add({.name = "qwen2_moe", .aliases = {"qwen2moe", "Qwen2MoeForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
