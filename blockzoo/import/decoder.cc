#include "blockzoo/import/decoder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace tessera::blockzoo {
namespace {

uint64_t Size(int64_t value) { return static_cast<uint64_t>(value); }

std::string BiasRole(absl::string_view role) {
  return role == "head" ? "bias" : absl::StrCat(role, "_bias");
}

Status NotAShape(const std::string& name, const Shape& shape, absl::string_view roles) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("the tensor ", name, " cannot be divided"),
                .why = absl::StrCat("it holds ", roles, ", of ", ShapeText(shape)),
                .fix = "use a model of the original publisher"});
}

// The parts of one tensor of the file, each of its role's shape.
class RuleCutter {
 public:
  RuleCutter(const BlockSpec& spec, const TensorRule& rule, TensorTaker& taker)
      : spec_(spec), rule_(rule), taker_(taker), roles_(absl::StrSplit(rule.roles, ',')) {}

  Status Cut(BlockPlan& block) {
    if (absl::EndsWith(rule_.name, ".weight") || absl::EndsWith(rule_.name, ".bias")) {
      return Take(absl::StrCat(spec_.prefix, rule_.name), roles_, block);
    }
    TESSERA_RETURN_IF_ERROR(Take(absl::StrCat(spec_.prefix, rule_.name, ".weight"), roles_, block));
    const std::string bias = absl::StrCat(spec_.prefix, rule_.name, ".bias");
    std::vector<std::string> biases;
    for (const std::string& role : roles_) biases.push_back(BiasRole(role));
    if (!taker_.Has(bias) || !spec_.shapes.contains(biases.front())) return absl::OkStatus();
    return Take(bias, biases, block);
  }

 private:
  Status Take(const std::string& name, const std::vector<std::string>& roles, BlockPlan& block) {
    std::vector<Shape> shapes;
    Shape whole;
    for (const std::string& role : roles) {
      const auto found = spec_.shapes.find(role);
      if (found == spec_.shapes.end()) {
        return Error(absl::StatusCode::kInternal,
                     {absl::StrCat("a block of type ", spec_.type, " has no tensor ", role)});
      }
      shapes.push_back(found->second);
      if (whole.empty()) {
        whole = found->second;
      } else {
        whole[0] += found->second[0];
      }
    }
    if (rule_.form == TensorForm::kStacked) return TakeStack(name, roles.front(), whole, block);
    const bool turned = rule_.form == TensorForm::kTransposed && whole.size() == 2;
    TESSERA_ASSIGN_OR_RETURN(CheckpointTensor tensor,
                             taker_.Take(name, turned ? Shape{whole[1], whole[0]} : whole));
    if (turned) {
      TESSERA_ASSIGN_OR_RETURN(tensor, Transposed(tensor));
    } else if (rule_.form == TensorForm::kPlusOne) {
      TESSERA_ASSIGN_OR_RETURN(tensor, PlusOne(tensor));
    }
    return Divide(tensor, roles, shapes, block);
  }

  // Each tensor holds an equal part of the rows; where that is one row, it may be a vector.
  Status TakeStack(const std::string& name, const std::string& role, const Shape& whole,
                   BlockPlan& block) {
    Shape part = whole;
    part[0] /= rule_.count;
    if (part[0] == 1 && part.size() > 1) part.erase(part.begin());
    std::vector<CheckpointTensor> tensors;
    for (uint64_t i = 0; i < rule_.count; ++i) {
      TESSERA_ASSIGN_OR_RETURN(
          CheckpointTensor tensor,
          taker_.Take(absl::StrReplaceAll(name, {{"*", absl::StrCat(i)}}), part));
      tensors.push_back(std::move(tensor));
    }
    TESSERA_ASSIGN_OR_RETURN(CheckpointTensor stack, Stacked(name, std::move(tensors)));
    stack.shape = whole;
    block.tensors.push_back({role, std::move(stack)});
    return absl::OkStatus();
  }

  Status Divide(const CheckpointTensor& tensor, const std::vector<std::string>& roles,
                const std::vector<Shape>& shapes, BlockPlan& block) {
    if (roles.size() == 1) {
      block.tensors.push_back({roles[0], tensor});
      return absl::OkStatus();
    }
    const uint64_t head_rows = spec_.head_rows;
    uint64_t begin = 0;
    for (size_t i = 0; i < roles.size(); ++i) {
      const uint64_t rows = shapes[i][0];
      if (rule_.form == TensorForm::kByHead) {
        if (rows != shapes[0][0] || rows % head_rows != 0) {
          return NotAShape(tensor.name, tensor.shape, rule_.roles);
        }
        TESSERA_ASSIGN_OR_RETURN(
            CheckpointTensor part,
            TakePeriodicRows(tensor, roles.size() * head_rows, i * head_rows, head_rows));
        block.tensors.push_back({roles[i], std::move(part)});
        continue;
      }
      TESSERA_ASSIGN_OR_RETURN(CheckpointTensor part, TakeRows(tensor, begin, rows));
      block.tensors.push_back({roles[i], std::move(part)});
      begin += rows;
    }
    return absl::OkStatus();
  }

  const BlockSpec& spec_;
  const TensorRule& rule_;
  TensorTaker& taker_;
  std::vector<std::string> roles_;
};

// `extra` over `attributes`.
void Merge(const Attributes& extra, Attributes& attributes) {
  for (const auto& [name, value] : extra.values()) attributes.Set(name, value);
}

void SetNorm(const Decoder& decoder, Attributes& attributes) {
  attributes.Set("norm_epsilon", decoder.epsilon);
  if (decoder.norm != "rms") attributes.Set("norm", decoder.norm);
}

// Roles of the norms around a block of the residual stream.
void AddNormShapes(const Decoder& decoder, BlockSpec& spec) {
  const Shape width = {Size(decoder.shape.width)};
  spec.shapes["norm"] = width;
  spec.shapes["post_norm"] = width;
  if (decoder.norm == "layer") spec.shapes["norm_bias"] = width;
}

void AddQkNormShapes(const DecoderShape& shape, BlockSpec& spec) {
  const StatusOr<std::string> kind = spec.attributes.Text("qk_norm");
  if (!kind.ok()) return;
  const uint64_t head_dim = Size(shape.head_dim);
  if (*kind == "full") {
    spec.shapes["q_norm"] = {Size(shape.q_width())};
    spec.shapes["k_norm"] = {Size(shape.kv_width())};
  } else if (*kind == "head_layer") {
    spec.shapes["q_norm"] = {Size(shape.q_heads), head_dim};
    spec.shapes["k_norm"] = {Size(shape.kv_heads), head_dim};
  } else {
    spec.shapes["q_norm"] = spec.shapes["k_norm"] = {head_dim};
  }
}

// GGUF files of any architecture may hold q, k and v in one tensor.
void UseFusedNames(const TensorTaker& taker, BlockSpec& spec) {
  const bool apart = std::any_of(spec.tensors.begin(), spec.tensors.end(),
                                 [](const TensorRule& rule) { return rule.roles == "q"; });
  if (!apart || !taker.Has(spec.prefix + "attn_qkv.weight")) return;
  for (const char* role : {"q", "k", "v"}) Remove(spec.tensors, role);
  Rename(spec.tensors, "q,k,v", "attn_qkv");
}

std::string LayerPrefix(const Decoder& decoder, int64_t layer) {
  return absl::StrCat(decoder.names.layer, layer, ".");
}

BlockSpec EmbeddingSpec(const Decoder& decoder) {
  const DecoderShape& shape = decoder.shape;
  BlockSpec spec{.type = "embedding", .attributes = decoder.embedding_attributes};
  spec.attributes.Set("width", shape.width);
  spec.attributes.Set("vocab", shape.vocab);
  spec.shapes["table"] = {Size(shape.vocab), Size(shape.width)};
  spec.shapes["positions"] = {Size(shape.max_context), Size(shape.width)};
  spec.tensors = decoder.names.embedding;
  return spec;
}

BlockSpec HeadSpec(const Decoder& decoder) {
  const DecoderShape& shape = decoder.shape;
  BlockSpec spec{.type = "lm_head"};
  spec.attributes.Set("width", shape.width);
  spec.attributes.Set("vocab", shape.vocab);
  SetNorm(decoder, spec.attributes);
  Merge(decoder.head_attributes, spec.attributes);
  AddNormShapes(decoder, spec);
  spec.shapes["head"] = {Size(shape.vocab), Size(shape.width)};
  spec.shapes["bias"] = {Size(shape.vocab)};
  spec.tensors = decoder.names.head;
  if (decoder.head == Decoder::Head::kTied) {
    Rename(spec.tensors, "head", absl::StrCat(decoder.names.embedding.front().name, ".weight"));
  }
  return spec;
}

// One block whose halves read the same residual; the feed-forward half's roles begin with "ffn_".
BlockSpec ParallelSpec(const Decoder& decoder, int64_t layer) {
  BlockSpec spec = AttentionSpec(decoder, layer);
  BlockSpec ffn = FfnSpec(decoder, layer);
  spec.type = "parallel";
  Merge(ffn.attributes, spec.attributes);
  for (auto& [role, shape] : ffn.shapes) spec.shapes["ffn_" + role] = std::move(shape);
  for (TensorRule& rule : ffn.tensors) {
    std::vector<std::string> roles = absl::StrSplit(rule.roles, ',');
    for (std::string& role : roles) role = "ffn_" + role;
    rule.roles = absl::StrJoin(roles, ",");
    spec.tensors.push_back(std::move(rule));
  }
  return spec;
}

std::vector<BlockSpec> UsualBlocks(const Decoder& decoder, int64_t layer) {
  if (decoder.residual == Decoder::Residual::kParallel) return {ParallelSpec(decoder, layer)};
  return {AttentionSpec(decoder, layer), FfnSpec(decoder, layer)};
}

}  // namespace

BlockSpec AttentionSpec(const Decoder& decoder, int64_t layer) {
  const DecoderShape& shape = decoder.shape;
  const LayerAttention of_layer =
      !decoder.layers.empty() ? decoder.layers[layer]
                              : LayerAttention{.rotary = decoder.rotary.empty() ? kNoRotary : 0};
  BlockSpec spec{.type = "attention", .prefix = LayerPrefix(decoder, layer)};
  spec.head_rows = Size(shape.head_dim);
  Attributes& attributes = spec.attributes;
  attributes.Set("width", shape.width);
  attributes.Set("q_heads", shape.q_heads);
  attributes.Set("kv_heads", shape.kv_heads);
  attributes.Set("head_dim", shape.head_dim);
  SetNorm(decoder, attributes);
  if (of_layer.rotary != kNoRotary) {
    const RotarySettings& rotary = decoder.rotary[of_layer.rotary];
    attributes.Set("rope_style", decoder.rope_style);
    attributes.Set("rotary", of_layer.rotary);
    if (rotary.dim != shape.head_dim) attributes.Set("rotary_dim", int64_t{rotary.dim});
  }
  if (of_layer.window > 0) attributes.Set("window", of_layer.window);
  Merge(decoder.attention_attributes, attributes);
  const uint64_t width = Size(shape.width);
  const uint64_t q = Size(shape.q_width()), kv = Size(shape.kv_width());
  AddNormShapes(decoder, spec);
  AddQkNormShapes(shape, spec);
  spec.shapes.insert({{"q", {q, width}},
                      {"k", {kv, width}},
                      {"v", {kv, width}},
                      {"o", {width, q}},
                      {"q_bias", {q}},
                      {"k_bias", {kv}},
                      {"v_bias", {kv}},
                      {"o_bias", {width}}});
  spec.tensors = decoder.names.attention;
  return spec;
}

BlockSpec FfnSpec(const Decoder& decoder, int64_t layer) {
  BlockSpec spec{.type = "ffn", .prefix = LayerPrefix(decoder, layer)};
  spec.attributes.Set("width", decoder.shape.width);
  spec.attributes.Set("hidden", decoder.shape.hidden);
  SetNorm(decoder, spec.attributes);
  spec.attributes.Set("activation", decoder.activation);
  Merge(decoder.ffn_attributes, spec.attributes);
  const uint64_t width = Size(decoder.shape.width), hidden = Size(decoder.shape.hidden);
  AddNormShapes(decoder, spec);
  spec.shapes.insert({{"gate", {hidden, width}},
                      {"up", {hidden, width}},
                      {"down", {width, hidden}},
                      {"gate_bias", {hidden}},
                      {"up_bias", {hidden}},
                      {"down_bias", {width}}});
  spec.tensors = decoder.names.ffn;
  return spec;
}

Status CheckHeads(const Decoder& decoder) {
  const DecoderShape& shape = decoder.shape;
  if (shape.q_heads % shape.kv_heads != 0) {
    return InvalidSetting(
        "number of key/value heads",
        absl::StrCat(shape.kv_heads, " does not divide ", shape.q_heads, " heads"));
  }
  for (const RotarySettings& rotary : decoder.rotary) {
    if (shape.head_dim % 2 != 0 || rotary.dim < 2 || rotary.dim % 2 != 0 ||
        rotary.dim > shape.head_dim) {
      return InvalidSetting("head size", absl::StrCat("heads of ", shape.head_dim, " with ",
                                                      rotary.dim, " rotated elements"));
    }
  }
  return absl::OkStatus();
}

StatusOr<BlockPlan> CutBlock(const BlockSpec& spec, TensorTaker& taker) {
  BlockPlan block{.type = spec.type, .attributes = spec.attributes};
  for (const TensorRule& rule : spec.tensors) {
    TESSERA_RETURN_IF_ERROR(RuleCutter(spec, rule, taker).Cut(block));
  }
  if (spec.take_more) TESSERA_RETURN_IF_ERROR(spec.take_more(taker, block));
  return block;
}

StatusOr<ChainPlan> CutDecoder(const Decoder& decoder, const SettingsReader& read,
                               TensorTaker& taker) {
  TESSERA_RETURN_IF_ERROR(read.CheckEffects());
  TESSERA_RETURN_IF_ERROR(CheckHeads(decoder));
  ChainPlan plan;
  plan.chain.architecture = decoder.architecture;
  plan.chain.width = Size(decoder.shape.width);
  plan.chain.vocab = Size(decoder.shape.vocab);
  plan.chain.max_context = Size(decoder.shape.max_context);
  plan.chain.rotary = decoder.rotary;
  const auto cut = [&](const BlockSpec& spec) -> Status {
    TESSERA_ASSIGN_OR_RETURN(BlockPlan block, CutBlock(spec, taker));
    plan.blocks.push_back(std::move(block));
    return absl::OkStatus();
  };
  TESSERA_RETURN_IF_ERROR(cut(EmbeddingSpec(decoder)));
  for (int64_t layer = 0; layer < decoder.shape.layers; ++layer) {
    std::vector<BlockSpec> blocks;
    if (decoder.blocks_of_layer) {
      TESSERA_ASSIGN_OR_RETURN(blocks, decoder.blocks_of_layer(decoder, layer));
    } else {
      blocks = UsualBlocks(decoder, layer);
    }
    for (BlockSpec& block : blocks) {
      UseFusedNames(taker, block);
      TESSERA_RETURN_IF_ERROR(cut(block));
    }
  }
  TESSERA_RETURN_IF_ERROR(cut(HeadSpec(decoder)));
  for (const char* suffix :
       {".rope_freqs.weight", ".attn_rot_embd.weight", ".rotary_emb.inv_freq"}) {
    taker.IgnoreEndingWith(suffix);
  }
  TESSERA_RETURN_IF_ERROR(taker.CheckNothingLeft());
  return plan;
}

}  // namespace tessera::blockzoo
