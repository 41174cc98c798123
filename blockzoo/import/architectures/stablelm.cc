// StableLM 2: LayerNorm, a part of each head rotated; the 12B has norms of queries and keys by head
// and a parallel residual.
#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {
namespace {

constexpr Key kParallel = {"use_parallel_residual", "use_parallel_residual"};
constexpr Key kQkNorm = {nullptr, "qk_layernorm"};

constexpr DecoderKind kKind = {
    .architecture = "stablelm",
    .norm = "layer",
    .defaults = {.max_context = 4096, .epsilon = 1e-5, .partial_rotary = 0.25}};

// GGUF files say it by the tensors that they have.
StatusOr<bool> HasQkNorm(SettingsReader& read, const TensorTaker& taker) {
  if (read.gguf()) return taker.Has("blk.0.attn_q_norm.weight");
  TESSERA_ASSIGN_OR_RETURN(const int64_t normed, read.IntegerOr(kQkNorm, 0, 0, 1));
  return normed != 0;
}

void AddQkNorms(const SettingsReader& read, Decoder& decoder) {
  decoder.attention_attributes.Set("qk_norm", std::string("head_layer"));
  TensorRules& rules = decoder.names.attention;
  if (read.gguf()) {
    rules.push_back({"q_norm", "attn_q_norm"});
    rules.push_back({"k_norm", "attn_k_norm"});
    return;
  }
  const auto add = [&rules](const char* role, const char* name, int64_t heads) {
    rules.push_back({role, name, TensorForm::kStacked, static_cast<uint64_t>(heads)});
  };
  add("q_norm", "self_attn.q_layernorm.norms.*.weight", decoder.shape.q_heads);
  add("k_norm", "self_attn.k_layernorm.norms.*.weight", decoder.shape.kv_heads);
}

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_ASSIGN_OR_RETURN(const bool qk_norm, HasQkNorm(read, taker));
  if (qk_norm) AddQkNorms(read, decoder);
  const bool one_norm = read.gguf() && !taker.Has("blk.0.ffn_norm.weight");
  TESSERA_ASSIGN_OR_RETURN(const int64_t parallel,
                           read.IntegerOr(kParallel, one_norm ? 1 : 0, 0, 1));
  if (parallel != 0) {
    decoder.residual = Decoder::Residual::kParallel;
    Remove(decoder.names.ffn, "norm");
  }
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_stablelm(ArchitectureRegistry& registry) {
  registry.Add({.name = "stablelm", .aliases = {"stablelm", "StableLmForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
