// Mistral and Ministral: Llama's blocks, all or some layers with a window of attention.
#include "blockzoo/import/layer_reader.h"

namespace tessera::blockzoo {
namespace {

constexpr DecoderKind kKind = {.architecture = "mistral",
                               .gguf_rope_style = "interleaved",
                               .defaults = {.kv_heads = 8, .max_context = 4096 * 32}};

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_RETURN_IF_ERROR(ReadWindows(0, read, decoder));
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_mistral(ArchitectureRegistry& registry) {
  registry.Add({.name = "mistral",
                .aliases = {"mistral3", "MistralForCausalLM", "MinistralForCausalLM",
                            "Ministral3ForCausalLM"},
                .cut = Cut});
}

}  // namespace tessera::blockzoo
