// Granite 3: Llama's blocks with multipliers of embeddings, scores, residuals and logits.
#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {
namespace {

constexpr double kMaxScale = 1e6;
constexpr Key kEmbedding = {"embedding_scale", "embedding_multiplier"};
constexpr Key kScores = {"attention.scale", "attention_multiplier"};
constexpr Key kResidual = {"residual_scale", "residual_multiplier"};
constexpr Key kLogits = {"logit_scale", "logits_scaling"};

constexpr DecoderKind kKind = {.architecture = "granite", .gguf_rope_style = "interleaved"};

Status ReadMultipliers(SettingsReader& read, Decoder& decoder) {
  TESSERA_ASSIGN_OR_RETURN(const double embedding, read.NumberOr(kEmbedding, 1.0, 1e-6, kMaxScale));
  TESSERA_ASSIGN_OR_RETURN(const double residual, read.NumberOr(kResidual, 1.0, 1e-6, kMaxScale));
  TESSERA_ASSIGN_OR_RETURN(const double logits, read.NumberOr(kLogits, 1.0, 1e-6, kMaxScale));
  // Without the setting, transformers multiplies by 1 and GGUF's readers by the usual scale.
  if (read.Has(kScores) || !read.gguf()) {
    TESSERA_ASSIGN_OR_RETURN(const double scores, read.NumberOr(kScores, 1.0, 1e-6, kMaxScale));
    decoder.attention_attributes.Set("scale", scores);
  }
  if (embedding != 1.0) decoder.embedding_attributes.Set("scale", embedding);
  if (residual != 1.0) {
    decoder.attention_attributes.Set("residual_scale", residual);
    decoder.ffn_attributes.Set("residual_scale", residual);
  }
  if (logits != 1.0) decoder.head_attributes.Set("scale", 1.0 / logits);
  return absl::OkStatus();
}

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_RETURN_IF_ERROR(ReadMultipliers(read, decoder));
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_granite(ArchitectureRegistry& registry) {
  registry.Add({.name = "granite", .aliases = {"granite", "GraniteForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
