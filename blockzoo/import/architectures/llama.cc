// The Llama family: Llama 2, Llama 3.x, SmolLM2, TinyLlama, Falcon 3.
#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {
namespace {

constexpr DecoderKind kKind = {.architecture = "llama", .gguf_rope_style = "interleaved"};

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(const Decoder decoder, ReadDecoder(kKind, read, taker));
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_llama(ArchitectureRegistry& registry) {
  registry.Add({.name = "llama", .aliases = {"llama", "LlamaForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
