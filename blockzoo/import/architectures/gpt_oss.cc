// gpt-oss: attention with sinks, every second layer with a window, experts with biases and a
// clamped gate.
#include "absl/strings/str_cat.h"
#include "blockzoo/import/layer_reader.h"
#include "blockzoo/import/mixture.h"

namespace tessera::blockzoo {
namespace {

constexpr DecoderKind kKind = {.architecture = "gpt_oss",
                               .defaults = {.kv_heads = 8,
                                            .head_dim = 64,
                                            .max_context = 131072,
                                            .epsilon = 1e-5,
                                            .rope_base = 150000.0}};

uint64_t Size(int64_t value) { return static_cast<uint64_t>(value); }

// Of all experts, [experts * out, in]: the file's matrices are [in, out], and [out, in] where they
// are of 4 bits.
StatusOr<CheckpointTensor> TakeMatrices(const Checkpoint& checkpoint, TensorTaker& taker,
                                        const std::string& name, uint64_t experts, uint64_t out,
                                        uint64_t in) {
  TESSERA_ASSIGN_OR_RETURN(const CheckpointTensor found, checkpoint.Tensor(name));
  const bool blocks = kernels::IsBlockFormat(found.dtype);
  TESSERA_ASSIGN_OR_RETURN(
      CheckpointTensor all,
      taker.Take(name, blocks ? Shape{experts, out, in} : Shape{experts, in, out}));
  all.shape = {experts * all.shape[1], all.shape[2]};
  if (blocks) return all;
  return TransposedPeriods(all, in, 0, in);
}

// The rows of gate and up take turns.
Status AddGateAndUp(BlockPlan& block, const CheckpointTensor& both, const char* suffix) {
  for (const auto& [role, begin] : {std::pair("gate", uint64_t{0}), std::pair("up", uint64_t{1})}) {
    TESSERA_ASSIGN_OR_RETURN(CheckpointTensor part, TakePeriodicRows(both, 2, begin, 1));
    block.tensors.push_back({absl::StrCat(role, suffix), std::move(part)});
  }
  return absl::OkStatus();
}

// Hugging Face's experts.
Status TakeExperts(const Checkpoint& checkpoint, TensorTaker& taker, BlockPlan& block,
                   const std::string& prefix, uint64_t experts, uint64_t hidden, uint64_t width) {
  TESSERA_ASSIGN_OR_RETURN(
      const CheckpointTensor both,
      TakeMatrices(checkpoint, taker, prefix + "gate_up_proj", experts, 2 * hidden, width));
  TESSERA_RETURN_IF_ERROR(AddGateAndUp(block, both, ""));
  TESSERA_ASSIGN_OR_RETURN(CheckpointTensor biases,
                           taker.Take(prefix + "gate_up_proj_bias", {experts, 2 * hidden}));
  biases.shape = {experts * 2 * hidden};
  TESSERA_RETURN_IF_ERROR(AddGateAndUp(block, biases, "_bias"));
  TESSERA_ASSIGN_OR_RETURN(
      CheckpointTensor down,
      TakeMatrices(checkpoint, taker, prefix + "down_proj", experts, width, hidden));
  block.tensors.push_back({"down", std::move(down)});
  TESSERA_ASSIGN_OR_RETURN(CheckpointTensor bias,
                           taker.Take(prefix + "down_proj_bias", {experts, width}));
  bias.shape = {experts * width};
  block.tensors.push_back({"down_bias", std::move(bias)});
  return absl::OkStatus();
}

StatusOr<std::vector<BlockSpec>> BlocksOfLayer(const Checkpoint& checkpoint, const Decoder& decoder,
                                               const Mixture& mixture, bool gguf, int64_t layer) {
  BlockSpec attention = AttentionSpec(decoder, layer);
  attention.take_more = [gguf, heads = Size(decoder.shape.q_heads), prefix = attention.prefix](
                            TensorTaker& taker, BlockPlan& block) {
    return taker.AddPart(block, "sinks", prefix + (gguf ? "attn_sinks.weight" : "self_attn.sinks"),
                         {heads});
  };
  BlockSpec moe = MixtureSpec(decoder, mixture, layer);
  if (!gguf) {
    moe.take_more = [&checkpoint, experts = Size(mixture.experts), hidden = Size(mixture.hidden),
                     width = Size(decoder.shape.width),
                     prefix = moe.prefix](TensorTaker& taker, BlockPlan& block) {
      return TakeExperts(checkpoint, taker, block, prefix + "mlp.experts.", experts, hidden, width);
    };
  }
  return std::vector<BlockSpec>{std::move(attention), std::move(moe)};
}

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  TESSERA_RETURN_IF_ERROR(ReadWindows(2, read, decoder));
  // The files of the converter do not say so, but the model was trained that way.
  if (read.gguf()) decoder.rotary.front().truncate = false;
  if (read.gguf()) Rename(decoder.names.ffn, "norm", "post_attention_norm");
  TESSERA_ASSIGN_OR_RETURN(Mixture mixture, ReadMixture(decoder, read));
  mixture.score = "softmax_of_top";
  if (!read.gguf()) mixture.names.router = "mlp.router";
  TESSERA_ASSIGN_OR_RETURN(const double limit,
                           read.NumberOr({nullptr, "swiglu_limit"}, 7.0, 1e-6, 1e6));
  TESSERA_ASSIGN_OR_RETURN(const double alpha,
                           read.NumberOr({nullptr, "swiglu_alpha"}, 1.702, 0.0, 1e6));
  decoder.activation = "clamped_swiglu";
  decoder.ffn_attributes.Set("limit", limit);
  decoder.ffn_attributes.Set("alpha", alpha);
  decoder.blocks_of_layer = [&checkpoint, mixture, gguf = read.gguf()](const Decoder& of,
                                                                       int64_t layer) {
    return BlocksOfLayer(checkpoint, of, mixture, gguf, layer);
  };
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_gpt_oss(ArchitectureRegistry& registry) {
  registry.Add({.name = "gpt_oss", .aliases = {"gpt-oss", "GptOssForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
