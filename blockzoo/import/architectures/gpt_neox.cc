// GPT-NeoX and Pythia: LayerNorm, biases, a part of each head rotated, attention and feed-forward
// beside each other.
#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {
namespace {

constexpr Key kParallel = {"use_parallel_residual", "use_parallel_residual"};

void RenameAll(const SettingsReader& read, DecoderNames& names) {
  Remove(names.ffn, "gate");
  if (read.gguf()) return;
  names.embedding = {{"table", "gpt_neox.embed_in"}};
  names.head = {{"norm", "gpt_neox.final_layer_norm"}, {"head", "embed_out"}};
  names.attention = {{"norm", "input_layernorm"},
                     {"q,k,v", "attention.query_key_value", TensorForm::kByHead},
                     {"o", "attention.dense"}};
  names.ffn = {{"norm", "post_attention_layernorm"},
               {"up", "mlp.dense_h_to_4h"},
               {"down", "mlp.dense_4h_to_h"}};
  names.layer = "gpt_neox.layers.";
}

constexpr DecoderKind kKind = {
    .architecture = "gpt_neox",
    .norm = "layer",
    .defaults = {.epsilon = 1e-5, .partial_rotary = 0.25, .activation = "gelu"},
    .rename = RenameAll};

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_ASSIGN_OR_RETURN(const int64_t parallel, read.IntegerOr(kParallel, 1, 0, 1));
  if (parallel != 0) decoder.residual = Decoder::Residual::kParallel;
  // Masks that older files keep beside the weights.
  taker.IgnoreEndingWith(".attention.bias");
  taker.IgnoreEndingWith(".attention.masked_bias");
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_gpt_neox(ArchitectureRegistry& registry) {
  registry.Add({.name = "gpt_neox", .aliases = {"gptneox", "GPTNeoXForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
