// Architectures with experts and latents: a model's Hugging Face files and its GGUF file, as
// llama.cpp's converter writes it, give the same blocks.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "blockzoo/import/architecture.h"
#include "blockzoo/import/tensor_forms.h"

namespace tessera::blockzoo {
namespace {

// A tensor of float32.
struct Values {
  Shape shape;
  std::vector<float> values;
};
using Tensors = std::map<std::string, Values>;

class MemoryCheckpoint final : public Checkpoint {
 public:
  MemoryCheckpoint(std::string format, std::string architecture, Tensors tensors)
      : format_(std::move(format)),
        architecture_(std::move(architecture)),
        tensors_(std::move(tensors)) {}
  std::string format() const override { return format_; }
  StatusOr<std::string> architecture() const override { return architecture_; }
  StatusOr<CheckpointTensor> Tensor(absl::string_view name) const override {
    const auto found = tensors_.find(std::string(name));
    if (found == tensors_.end()) return absl::NotFoundError(name);
    return CheckpointTensor{std::string(name), kernels::DType::kF32, found->second.shape,
                            std::as_bytes(std::span(found->second.values))};
  }
  std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    return names;
  }
  const Attributes& settings() const override { return settings_; }
  StatusOr<std::map<std::string, std::string>> Assets() const override {
    return std::map<std::string, std::string>();
  }
  StatusOr<std::vector<CheckpointFile>> Files() const override {
    return std::vector<CheckpointFile>();
  }
  StatusOr<std::vector<uint32_t>> EndTokenIds() const override { return std::vector<uint32_t>(); }

  // GGUF's settings get the architecture's prefix.
  MemoryCheckpoint& Set(const std::string& key, double value) {
    const std::string name = format_ == "gguf" ? architecture_ + "." + key : key;
    if (value == std::floor(value)) {
      settings_.Set(name, static_cast<int64_t>(value));
    } else {
      settings_.Set(name, value);
    }
    return *this;
  }
  MemoryCheckpoint& Text(const std::string& key, const std::string& value) {
    settings_.Set(format_ == "gguf" ? architecture_ + "." + key : key, value);
    return *this;
  }

 private:
  std::string format_;
  std::string architecture_;
  Tensors tensors_;
  Attributes settings_;
};

constexpr uint64_t kWidth = 32, kLayers = 2, kExperts = 3, kHidden = 16, kDense = 48, kVocab = 10;

// Hugging Face's tensors, each with values of its own, and the same under the converter's names.
class Model {
 public:
  void Add(const std::string& huggingface, const std::string& gguf, const Shape& shape) {
    gguf_[gguf] = huggingface_[huggingface] = Make(shape);
  }
  // Names under each layer's prefix.
  void AddLayers(const std::string& huggingface, const std::string& gguf, const Shape& shape) {
    ForLayers(
        [&](const std::string& h, const std::string& g) { Add(h + huggingface, g + gguf, shape); });
  }
  // One tensor an expert, whose number is in place of '*'.
  void AddExperts(const std::string& huggingface, const std::string& gguf, const Shape& shape) {
    ForLayers([&](const std::string& h, const std::string& g) {
      Values all{{kExperts, shape[0], shape[1]}, {}};
      for (uint64_t e = 0; e < kExperts; ++e) {
        const std::string name = absl::StrReplaceAll(huggingface, {{"*", absl::StrCat(e)}});
        const Values expert = huggingface_[h + name] = Make(shape);
        all.values.insert(all.values.end(), expert.values.begin(), expert.values.end());
        old_gguf_[g + absl::StrReplaceAll(gguf, {{"_exps", absl::StrCat(".", e)}})] = expert;
      }
      gguf_[g + gguf] = all;
    });
  }
  template <typename Body>
  void ForLayers(Body body) {
    for (uint64_t i = 0; i < kLayers; ++i) {
      body(absl::StrCat("model.layers.", i, "."), absl::StrCat("blk.", i, "."));
    }
  }
  void AddEnds() {
    Add("model.embed_tokens.weight", "token_embd.weight", {kVocab, kWidth});
    Add("model.norm.weight", "output_norm.weight", {kWidth});
    Add("lm_head.weight", "output.weight", {kVocab, kWidth});
    AddLayers("input_layernorm.weight", "attn_norm.weight", {kWidth});
  }
  void AddAttention() {
    AddLayers("self_attn.q_proj.weight", "attn_q.weight", {32, kWidth});
    AddLayers("self_attn.k_proj.weight", "attn_k.weight", {16, kWidth});
    AddLayers("self_attn.v_proj.weight", "attn_v.weight", {16, kWidth});
    AddLayers("self_attn.o_proj.weight", "attn_output.weight", {kWidth, 32});
  }

  Values Make(const Shape& shape) {
    Values made{shape, {}};
    uint64_t count = 1;
    for (const uint64_t dimension : shape) count *= dimension;
    for (uint64_t i = 0; i < count; ++i) made.values.push_back(next_ += 0.25f);
    return made;
  }

  MemoryCheckpoint HuggingFace(const std::string& name) const {
    MemoryCheckpoint made("huggingface", name, huggingface_);
    made.Set("num_hidden_layers", kLayers)
        .Set("hidden_size", kWidth)
        .Set("intermediate_size", kDense)
        .Set("vocab_size", kVocab)
        .Set("num_attention_heads", 4)
        .Set("num_key_value_heads", 2)
        .Set("max_position_embeddings", 128)
        .Set("rms_norm_eps", 0.0009765625)
        .Set("num_experts_per_tok", 2);
    return made;
  }
  MemoryCheckpoint Gguf(const std::string& name) const {
    MemoryCheckpoint made("gguf", name, gguf_);
    made.Set("block_count", kLayers)
        .Set("embedding_length", kWidth)
        .Set("feed_forward_length", kDense)
        .Set("attention.head_count", 4)
        .Set("attention.head_count_kv", 2)
        .Set("context_length", 128)
        .Set("attention.layer_norm_rms_epsilon", 0.0009765625)
        .Set("expert_count", kExperts)
        .Set("expert_used_count", 2);
    return made;
  }
  // The experts' tensors under the names of before they were one.
  void UseOldNames() {
    for (const auto& [name, tensor] : old_gguf_) gguf_[name] = tensor;
    std::erase_if(gguf_,
                  [](const auto& entry) { return entry.first.find("_exps") != std::string::npos; });
  }

  Tensors huggingface_, gguf_, old_gguf_;

 private:
  float next_ = 0;
};

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TESSERA_ASSIGN_OR_RETURN(const Architecture architecture, FindArchitecture(checkpoint));
  return architecture.cut(checkpoint);
}

void ExpectEqualBlocks(const BlockPlan& a, const BlockPlan& b) {
  EXPECT_EQ(a.type, b.type);
  EXPECT_EQ(a.attributes, b.attributes) << a.type;
  const auto by_role = [](const BlockPlan& block) {
    std::map<std::string, CheckpointTensor> roles;
    for (const BlockPlan::Part& part : block.tensors) roles[part.role] = part.tensor;
    return roles;
  };
  const auto left = by_role(a), right = by_role(b);
  ASSERT_EQ(left.size(), right.size()) << a.type;
  for (const auto& [role, tensor] : left) {
    ASSERT_TRUE(right.contains(role)) << a.type << " " << role;
    const CheckpointTensor& other = right.at(role);
    EXPECT_EQ(tensor.shape, other.shape) << role;
    EXPECT_EQ(BytesOf(tensor).value(), BytesOf(other).value()) << role;
  }
}

// The plans of both files, equal but for what `differing` names, which is taken out of both.
void ExpectEqual(const MemoryCheckpoint& huggingface, const MemoryCheckpoint& gguf,
                 StatusOr<ChainPlan>& plan, const char* differing = nullptr) {
  plan = Cut(huggingface);
  ASSERT_TRUE(plan.ok()) << plan.status();
  StatusOr<ChainPlan> other = Cut(gguf);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(plan->chain.rotary, other->chain.rotary);
  ASSERT_EQ(plan->blocks.size(), other->blocks.size());
  for (size_t i = 0; i < plan->blocks.size(); ++i) {
    if (differing != nullptr && plan->blocks[i].attributes.Has(differing)) {
      other->blocks[i].attributes.Set(differing, *plan->blocks[i].attributes.Text(differing));
    }
    ExpectEqualBlocks(plan->blocks[i], other->blocks[i]);
  }
}

Model Mixtral() {
  Model model;
  model.AddEnds();
  model.AddAttention();
  model.AddLayers("post_attention_layernorm.weight", "ffn_norm.weight", {kWidth});
  model.AddLayers("block_sparse_moe.gate.weight", "ffn_gate_inp.weight", {kExperts, kWidth});
  model.AddExperts("block_sparse_moe.experts.*.w1.weight", "ffn_gate_exps.weight",
                   {kDense, kWidth});
  model.AddExperts("block_sparse_moe.experts.*.w3.weight", "ffn_up_exps.weight", {kDense, kWidth});
  model.AddExperts("block_sparse_moe.experts.*.w2.weight", "ffn_down_exps.weight",
                   {kWidth, kDense});
  return model;
}

TEST(MixtureImportTest, Mixtral) {
  Model model = Mixtral();
  const MemoryCheckpoint file = model.HuggingFace("MixtralForCausalLM").Set("num_local_experts", 3);
  StatusOr<ChainPlan> plan = absl::UnknownError("");
  // The converter permutes q and k.
  ExpectEqual(file, model.Gguf("llama"), plan, "rope_style");
  model.UseOldNames();
  ExpectEqual(file, model.Gguf("llama"), plan, "rope_style");
  const BlockPlan& moe = plan->blocks[2];
  EXPECT_EQ(moe.type, "moe");
  EXPECT_EQ(*moe.attributes.Integer("hidden", 1, 1000), int64_t{kDense});
  EXPECT_EQ(*moe.attributes.Integer("router_normalise", 0, 1), 1);
  EXPECT_EQ(*moe.attributes.Text("router_score"), "softmax");
}

TEST(MixtureImportTest, AMissingExpertIsNamed) {
  Model model = Mixtral();
  model.huggingface_.erase("model.layers.1.block_sparse_moe.experts.2.w3.weight");
  const Status status =
      Cut(model.HuggingFace("MixtralForCausalLM").Set("num_local_experts", 3)).status();
  EXPECT_NE(status.message().find("layers.1.block_sparse_moe.experts.2.w3.weight"),
            absl::string_view::npos)
      << status;
}

TEST(MixtureImportTest, Qwen3) {
  Model model;
  model.AddEnds();
  model.AddAttention();
  model.AddLayers("self_attn.q_norm.weight", "attn_q_norm.weight", {8});
  model.AddLayers("self_attn.k_norm.weight", "attn_k_norm.weight", {8});
  model.AddLayers("post_attention_layernorm.weight", "ffn_norm.weight", {kWidth});
  model.AddLayers("mlp.gate.weight", "ffn_gate_inp.weight", {kExperts, kWidth});
  model.AddExperts("mlp.experts.*.gate_proj.weight", "ffn_gate_exps.weight", {kHidden, kWidth});
  model.AddExperts("mlp.experts.*.up_proj.weight", "ffn_up_exps.weight", {kHidden, kWidth});
  model.AddExperts("mlp.experts.*.down_proj.weight", "ffn_down_exps.weight", {kWidth, kHidden});
  StatusOr<ChainPlan> plan = absl::UnknownError("");
  ExpectEqual(model.HuggingFace("Qwen3MoeForCausalLM")
                  .Set("num_experts", 3)
                  .Set("moe_intermediate_size", kHidden)
                  .Set("norm_topk_prob", 1),
              model.Gguf("qwen3moe").Set("expert_feed_forward_length", kHidden), plan);
  EXPECT_EQ(*plan->blocks[1].attributes.Text("qk_norm"), "head");
}

TEST(MixtureImportTest, Qwen2) {
  Model model;
  model.AddEnds();
  model.AddAttention();
  model.AddLayers("self_attn.q_proj.bias", "attn_q.bias", {32});
  model.AddLayers("self_attn.k_proj.bias", "attn_k.bias", {16});
  model.AddLayers("self_attn.v_proj.bias", "attn_v.bias", {16});
  model.AddLayers("post_attention_layernorm.weight", "ffn_norm.weight", {kWidth});
  model.AddLayers("mlp.gate.weight", "ffn_gate_inp.weight", {kExperts, kWidth});
  model.AddLayers("mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", {1, kWidth});
  model.AddLayers("mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight", {64, kWidth});
  model.AddLayers("mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight", {64, kWidth});
  model.AddLayers("mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight", {kWidth, 64});
  model.AddExperts("mlp.experts.*.gate_proj.weight", "ffn_gate_exps.weight", {kHidden, kWidth});
  model.AddExperts("mlp.experts.*.up_proj.weight", "ffn_up_exps.weight", {kHidden, kWidth});
  model.AddExperts("mlp.experts.*.down_proj.weight", "ffn_down_exps.weight", {kWidth, kHidden});
  StatusOr<ChainPlan> plan = absl::UnknownError("");
  ExpectEqual(model.HuggingFace("Qwen2MoeForCausalLM")
                  .Set("num_experts", 3)
                  .Set("moe_intermediate_size", kHidden)
                  .Set("shared_expert_intermediate_size", 64)
                  .Set("norm_topk_prob", 0),
              model.Gguf("qwen2moe")
                  .Set("expert_feed_forward_length", kHidden)
                  .Set("expert_shared_feed_forward_length", 64),
              plan);
  EXPECT_EQ(*plan->blocks[2].attributes.Integer("shared_hidden", 1, 100), 64);
  EXPECT_FALSE(plan->blocks[2].attributes.Has("router_normalise"));
}

constexpr uint64_t kHeads = 4, kNope = 16, kRope = 8, kRank = 32, kValue = 16, kQRank = 24;

// The converter splits kv_b by head, and turns the keys' part.
void SplitUpProjections(Model& model) {
  model.ForLayers([&](const std::string& h, const std::string& g) {
    const Values both = model.huggingface_[h + "self_attn.kv_b_proj.weight"] =
        model.Make({kHeads * (kNope + kValue), kRank});
    Values k{{kHeads, kRank, kNope}, {}}, v{{kHeads, kValue, kRank}, {}};
    for (uint64_t head = 0; head < kHeads; ++head) {
      const float* rows = &both.values[head * (kNope + kValue) * kRank];
      for (uint64_t r = 0; r < kRank; ++r) {
        for (uint64_t n = 0; n < kNope; ++n) k.values.push_back(rows[n * kRank + r]);
      }
      v.values.insert(v.values.end(), rows + kNope * kRank, rows + (kNope + kValue) * kRank);
    }
    model.gguf_[g + "attn_k_b.weight"] = k;
    model.gguf_[g + "attn_v_b.weight"] = v;
  });
}

Model Deepseek() {
  Model model;
  model.AddEnds();
  model.AddLayers("self_attn.q_a_proj.weight", "attn_q_a.weight", {kQRank, kWidth});
  model.AddLayers("self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight", {kQRank});
  model.AddLayers("self_attn.q_b_proj.weight", "attn_q_b.weight",
                  {kHeads * (kNope + kRope), kQRank});
  model.AddLayers("self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight",
                  {kRank + kRope, kWidth});
  model.AddLayers("self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight", {kRank});
  model.AddLayers("self_attn.o_proj.weight", "attn_output.weight", {kWidth, kHeads * kValue});
  SplitUpProjections(model);
  model.AddLayers("post_attention_layernorm.weight", "ffn_norm.weight", {kWidth});
  model.AddLayers("mlp.gate.weight", "ffn_gate_inp.weight", {kExperts, kWidth});
  model.AddLayers("mlp.gate.e_score_correction_bias", "exp_probs_b.bias", {kExperts});
  model.AddLayers("mlp.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight", {32, kWidth});
  model.AddLayers("mlp.shared_experts.up_proj.weight", "ffn_up_shexp.weight", {32, kWidth});
  model.AddLayers("mlp.shared_experts.down_proj.weight", "ffn_down_shexp.weight", {kWidth, 32});
  model.AddExperts("mlp.experts.*.gate_proj.weight", "ffn_gate_exps.weight", {kHidden, kWidth});
  model.AddExperts("mlp.experts.*.up_proj.weight", "ffn_up_exps.weight", {kHidden, kWidth});
  model.AddExperts("mlp.experts.*.down_proj.weight", "ffn_down_exps.weight", {kWidth, kHidden});
  return model;
}

MemoryCheckpoint DeepseekFile(const Model& model) {
  return model.HuggingFace("DeepseekV3ForCausalLM")
      .Set("q_lora_rank", kQRank)
      .Set("kv_lora_rank", kRank)
      .Set("qk_nope_head_dim", kNope)
      .Set("qk_rope_head_dim", kRope)
      .Set("v_head_dim", kValue)
      .Set("n_routed_experts", kExperts)
      .Set("n_shared_experts", 2)
      .Set("moe_intermediate_size", kHidden)
      .Set("n_group", 3)
      .Set("topk_group", 2)
      .Set("norm_topk_prob", 1)
      .Set("routed_scaling_factor", 2.5)
      .Set("first_k_dense_replace", 0);
}

TEST(MixtureImportTest, DeepseekV3) {
  const Model model = Deepseek();
  StatusOr<ChainPlan> plan = absl::UnknownError("");
  ExpectEqual(DeepseekFile(model),
              model.Gguf("deepseek2")
                  .Set("attention.head_count_kv", 1)
                  .Set("attention.q_lora_rank", kQRank)
                  .Set("attention.kv_lora_rank", kRank)
                  .Set("attention.key_length", kRank + kRope)
                  .Set("attention.value_length", kRank)
                  .Set("attention.key_length_mla", kNope + kRope)
                  .Set("attention.value_length_mla", kValue)
                  .Set("rope.dimension_count", kRope)
                  .Set("expert_shared_count", 2)
                  .Set("expert_feed_forward_length", kHidden)
                  .Set("expert_group_count", 3)
                  .Set("expert_group_used_count", 2)
                  .Set("expert_gating_func", 2)
                  .Set("expert_weights_norm", 1)
                  .Set("expert_weights_scale", 2.5)
                  .Set("leading_dense_block_count", 0),
              plan);
  EXPECT_EQ(plan->blocks[1].type, "latent_attention");
  EXPECT_EQ(*plan->blocks[1].attributes.Text("rope_style"), "interleaved");
  EXPECT_EQ(plan->chain.rotary[0].dim, kRope);
  EXPECT_EQ(*plan->blocks[2].attributes.Text("group_score"), "top_two");
}

TEST(MixtureImportTest, DeepseeksSettingsThatNoBlockHonoursAreRefused) {
  const Model model = Deepseek();
  const auto refused = [&](const MemoryCheckpoint& file, const char* what) {
    const Status status = Cut(file).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    EXPECT_NE(status.message().find(what), absl::string_view::npos) << status;
  };
  refused(DeepseekFile(model).Text("scoring_func", "tanh"), "scoring_func");
  refused(DeepseekFile(model).Text("topk_method", "greedy"), "topk_method");
  EXPECT_FALSE(Cut(DeepseekFile(model).Set("moe_layer_freq", 2)).ok());
  EXPECT_FALSE(Cut(DeepseekFile(model).Set("n_group", 2)).ok());  // of three experts
}

// The converter turns the matrices, and tells gate and up apart, whose columns take turns.
void AddGptOssExperts(Model& model) {
  model.ForLayers([&](const std::string& h, const std::string& g) {
    const Values both = model.huggingface_[h + "mlp.experts.gate_up_proj"] =
        model.Make({kExperts, kWidth, 2 * kHidden});
    const Values biases = model.huggingface_[h + "mlp.experts.gate_up_proj_bias"] =
        model.Make({kExperts, 2 * kHidden});
    const Values down = model.huggingface_[h + "mlp.experts.down_proj"] =
        model.Make({kExperts, kHidden, kWidth});
    Values turned{{kExperts, kWidth, kHidden}, {}};
    for (uint64_t e = 0; e < kExperts; ++e) {
      for (uint64_t w = 0; w < kWidth; ++w) {
        for (uint64_t i = 0; i < kHidden; ++i) {
          turned.values.push_back(down.values[(e * kHidden + i) * kWidth + w]);
        }
      }
    }
    model.gguf_[g + "ffn_down_exps.weight"] = turned;
    for (const uint64_t part : {0, 1}) {
      const std::string name = g + (part == 0 ? "ffn_gate_exps" : "ffn_up_exps");
      Values weight{{kExperts, kHidden, kWidth}, {}}, bias{{kExperts, kHidden}, {}};
      for (uint64_t e = 0; e < kExperts; ++e) {
        for (uint64_t i = 0; i < kHidden; ++i) {
          bias.values.push_back(biases.values[e * 2 * kHidden + 2 * i + part]);
          for (uint64_t w = 0; w < kWidth; ++w) {
            weight.values.push_back(both.values[(e * kWidth + w) * 2 * kHidden + 2 * i + part]);
          }
        }
      }
      model.gguf_[name + ".weight"] = weight;
      model.gguf_[name + ".bias"] = bias;
    }
  });
}

TEST(MixtureImportTest, GptOss) {
  Model model;
  model.AddEnds();
  model.AddAttention();
  model.AddLayers("self_attn.sinks", "attn_sinks.weight", {4});
  model.AddLayers("post_attention_layernorm.weight", "post_attention_norm.weight", {kWidth});
  model.AddLayers("mlp.router.weight", "ffn_gate_inp.weight", {kExperts, kWidth});
  model.AddLayers("mlp.router.bias", "ffn_gate_inp.bias", {kExperts});
  model.AddLayers("mlp.experts.down_proj_bias", "ffn_down_exps.bias", {kExperts, kWidth});
  AddGptOssExperts(model);
  StatusOr<ChainPlan> plan = absl::UnknownError("");
  MemoryCheckpoint file = model.HuggingFace("GptOssForCausalLM");
  file.Set("num_local_experts", kExperts)
      .Set("intermediate_size", kHidden)
      .Set("sliding_window", 32)
      .Set("head_dim", 8)
      .Set("rope_theta", 150000);
  MemoryCheckpoint gguf = model.Gguf("gpt-oss");
  gguf.Set("feed_forward_length", kHidden)
      .Set("attention.sliding_window", 32)
      .Set("attention.key_length", 8)
      .Set("attention.value_length", 8)
      .Set("rope.freq_base", 150000);
  plan = Cut(file);
  ASSERT_TRUE(plan.ok()) << plan.status();
  StatusOr<ChainPlan> other = Cut(gguf);
  ASSERT_TRUE(other.ok()) << other.status();
  for (size_t i = 0; i < plan->blocks.size(); ++i) {
    ExpectEqualBlocks(plan->blocks[i], other->blocks[i]);
  }
  EXPECT_EQ(*plan->blocks[1].attributes.Integer("window", 1, 100), 32);
  EXPECT_FALSE(plan->blocks[3].attributes.Has("window"));
  EXPECT_EQ(*plan->blocks[2].attributes.Text("activation"), "clamped_swiglu");
}

}  // namespace
}  // namespace tessera::blockzoo
