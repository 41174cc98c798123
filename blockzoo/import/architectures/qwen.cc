// Qwen2, Qwen2.5 and Qwen3 (dense): Llama's blocks with biases of q, k and v, or with norms of
// queries and keys; upper layers may have a window.
#include "blockzoo/import/layer_reader.h"

namespace tessera::blockzoo {
namespace {

constexpr DecoderKind kQwen2 = {.architecture = "qwen2", .defaults = {.max_context = 32768}};

void RenameQwen3(const SettingsReader& read, DecoderNames& names) {
  Rename(names.attention, "q_norm", read.gguf() ? "attn_q_norm" : "self_attn.q_norm");
  Rename(names.attention, "k_norm", read.gguf() ? "attn_k_norm" : "self_attn.k_norm");
}

constexpr DecoderKind kQwen3 = {.architecture = "qwen3",
                                .defaults = {.head_dim = 128, .max_context = 32768},
                                .rename = RenameQwen3};

// A window counts only where its use is said.
Status ReadQwenWindows(SettingsReader& read, Decoder& decoder) {
  constexpr Key kWindow = {nullptr, "sliding_window"};
  if (!read.gguf() && !read.Has({nullptr, "use_sliding_window"})) {
    read.Honour(kWindow);
    return absl::OkStatus();
  }
  return ReadWindows(0, read, decoder);
}

StatusOr<ChainPlan> CutQwen2(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kQwen2, read, taker));
  TESSERA_RETURN_IF_ERROR(ReadQwenWindows(read, decoder));
  return CutDecoder(decoder, read, taker);
}

StatusOr<ChainPlan> CutQwen3(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kQwen3, read, taker));
  decoder.attention_attributes.Set("qk_norm", std::string("head"));
  TESSERA_RETURN_IF_ERROR(ReadQwenWindows(read, decoder));
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_qwen(ArchitectureRegistry& registry) {
  registry.Add({.name = "qwen2", .aliases = {"qwen2", "Qwen2ForCausalLM"}, .cut = CutQwen2});
  registry.Add({.name = "qwen3", .aliases = {"qwen3", "Qwen3ForCausalLM"}, .cut = CutQwen3});
}

}  // namespace tessera::blockzoo
