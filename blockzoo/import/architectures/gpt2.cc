// GPT-2: learned positions, LayerNorm, matrices stored as [in, out] by Hugging Face.
#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {
namespace {

constexpr Key kScaleScores = {nullptr, "scale_attn_weights"};

void RenameGguf(DecoderNames& names) {
  names.embedding.push_back({"positions", "position_embd"});
  Remove(names.ffn, "gate");
}

void RenameAll(const SettingsReader& read, DecoderNames& names) {
  if (read.gguf()) return RenameGguf(names);
  // The original files leave the prefix out.
  const bool prefixed = read.checkpoint().Tensor("transformer.wte.weight").ok();
  const std::string prefix = prefixed ? "transformer." : "";
  names.embedding = {{"table", prefix + "wte"}, {"positions", prefix + "wpe"}};
  names.head = {{"norm", prefix + "ln_f"}, {"head", "lm_head"}};
  names.attention = {{"norm", "ln_1"},
                     {"q,k,v", "attn.c_attn", TensorForm::kTransposed},
                     {"o", "attn.c_proj", TensorForm::kTransposed}};
  names.ffn = {{"norm", "ln_2"},
               {"up", "mlp.c_fc", TensorForm::kTransposed},
               {"down", "mlp.c_proj", TensorForm::kTransposed}};
  names.layer = prefix + "h.";
}

constexpr DecoderKind kKind = {.architecture = "gpt2",
                               .norm = "layer",
                               .defaults = {.hidden_widths = 4,
                                            .max_context = 1024,
                                            .epsilon = 1e-5,
                                            .rotation = DecoderDefaults::Rotation::kNone,
                                            .head = Decoder::Head::kTied,
                                            .activation = "gelu_new"},
                               .rename = RenameAll};

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_ASSIGN_OR_RETURN(const int64_t scaled, read.IntegerOr(kScaleScores, 1, 0, 1));
  if (scaled == 0) decoder.attention_attributes.Set("scale", 1.0);
  // Masks that older files keep beside the weights.
  taker.IgnoreEndingWith(".attn.bias");
  taker.IgnoreEndingWith(".attn.masked_bias");
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_gpt2(ArchitectureRegistry& registry) {
  registry.Add({.name = "gpt2", .aliases = {"gpt2", "GPT2LMHeadModel"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
