// What settings make of blocks, and how those that no block honours are refused. That the blocks
// compute what the models mean is shown by the golden tests.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "blockzoo/import/architecture.h"
#include "blockzoo/import/format.h"
#include "tests/support/cut_checkpoint.h"
#include "tests/support/tiny_checkpoint.h"

namespace tessera::blockzoo {
namespace {

using testing::CutGguf;
using testing::CutPath;
using testing::ExpectRefused;
using testing::GgufWriter;
using testing::TempDirectory;
using testing::TinyCheckpoint;
using testing::TinyGguf;
using testing::WriteFile;
using testing::WriteTinyHuggingFace;

// Llama's tensors under another class; `config` is added to the settings.
StatusOr<ChainPlan> Cut(const std::string& model_class, const std::string& config,
                        const TinyCheckpoint& tiny = {}) {
  const TempDirectory directory;
  WriteTinyHuggingFace(tiny, directory.path("m"),
                       absl::StrCat(",\"architectures\":[\"", model_class, "\"]", config));
  return CutPath(directory.path("m"));
}

// An attribute of the attention block of each of the three layers; -1 where it is absent.
std::vector<int64_t> OfLayers(const ChainPlan& plan, const std::string& attribute) {
  std::vector<int64_t> values;
  for (const BlockPlan& block : plan.blocks) {
    if (block.type != "attention") continue;
    values.push_back(block.attributes.Integer(attribute, 0, INT64_MAX).value_or(-1));
  }
  return values;
}

TEST(ArchitecturesTest, WindowsAreOfTheLayersThatHaveThem) {
  const struct {
    const char* model_class;
    const char* config;
    std::vector<int64_t> windows;
  } cases[] = {
      {"MistralForCausalLM", ",\"sliding_window\":64", {64, 64, 64}},
      {"MistralForCausalLM", ",\"sliding_window\":null", {-1, -1, -1}},
      {"MistralForCausalLM", ",\"sliding_window\":256", {-1, -1, -1}},
      {"MinistralForCausalLM",
       ",\"sliding_window\":9,\"layer_types\":[\"full_attention\",\"sliding_attention\","
       "\"full_attention\"]",
       {-1, 9, -1}},
      {"Qwen2ForCausalLM",
       ",\"sliding_window\":9,\"use_sliding_window\":true,\"max_window_layers\":2",
       {-1, -1, 9}},
      {"Qwen2ForCausalLM", ",\"sliding_window\":9,\"use_sliding_window\":false", {-1, -1, -1}},
      {"Qwen2ForCausalLM", ",\"sliding_window\":9", {-1, -1, -1}},
  };
  for (const auto& [model_class, config, windows] : cases) {
    const auto plan = Cut(model_class, config);
    ASSERT_TRUE(plan.ok()) << config << ": " << plan.status();
    EXPECT_EQ(OfLayers(*plan, "window"), windows) << config;
  }
}

TEST(ArchitecturesTest, LayersWithoutRotationNameNone) {
  const auto plan = Cut("SmolLM3ForCausalLM", ",\"no_rope_layers\":[1,0,1]");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(OfLayers(*plan, "rotary"), (std::vector<int64_t>{0, -1, 0}));
  EXPECT_FALSE(plan->blocks[3].attributes.Has("rope_style"));
}

TEST(ArchitecturesTest, RefusesByNameSettingsWithAnEffect) {
  const struct {
    const char* model_class;
    const char* config;
    const char* name;
  } cases[] = {
      {"LlamaForCausalLM", ",\"clip_qkv\":8.0", "clip_qkv"},
      {"LlamaForCausalLM", ",\"logits_scaling\":8.0", "logits_scaling"},
      {"LlamaForCausalLM", ",\"residual_multiplier\":0.2", "residual_multiplier"},
      {"LlamaForCausalLM", ",\"use_qk_norm\":true", "use_qk_norm"},
      {"LlamaForCausalLM", ",\"no_rope_layers\":[1,0,1]", "no_rope_layers"},
      {"LlamaForCausalLM", ",\"hidden_act\":\"quick_gelu\"", "quick_gelu"},
      {"MistralForCausalLM", ",\"rope_parameters\":{\"llama_4_scaling_beta\":0.1}",
       "llama_4_scaling_beta"},
      {"MinistralForCausalLM",
       ",\"sliding_window\":9,\"layer_types\":[\"chunked_attention\",\"full_attention\","
       "\"full_attention\"]",
       "chunked_attention"},
      {"SmolLM3ForCausalLM", ",\"use_sliding_window\":true,\"sliding_window\":9", "sliding_window"},
      {"LlamaForCausalLM", ",\"rope_scaling\":{\"rope_type\":\"proportional\"}", "proportional"},
  };
  for (const auto& [model_class, config, name] : cases) {
    SCOPED_TRACE(config);
    ExpectRefused(Cut(model_class, config).status(), absl::StatusCode::kUnimplemented, name);
  }
  ExpectRefused(CutGguf(TinyGguf({}).F32("llama.attention.clamp_kqv", 8)).status(),
                absl::StatusCode::kUnimplemented, "llama.attention.clamp_kqv");
  ExpectRefused(CutGguf(TinyGguf({}).F32("llama.logit_scale", 2)).status(),
                absl::StatusCode::kUnimplemented, "llama.logit_scale");
  ExpectRefused(CutGguf(TinyGguf({}).Bool("llama.attention.causal", 0)).status(),
                absl::StatusCode::kUnimplemented, "llama.attention.causal");
}

TEST(ArchitecturesTest, NamesSettingsThatAreNotValid) {
  const struct {
    const char* model_class;
    const char* config;
    const char* name;
  } cases[] = {
      {"MinistralForCausalLM", ",\"sliding_window\":9,\"layer_types\":[\"full_attention\"]",
       "layer_types"},
      {"SmolLM3ForCausalLM", ",\"no_rope_layers\":[1]", "no_rope_layers"},
      {"LlamaForCausalLM", ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":-1}",
       "rope_scaling.factor"},
      {"LlamaForCausalLM",
       ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1],\"long_factor\":[1,1]}",
       "short_factor"},
      {"LlamaForCausalLM",
       ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1,1,1,1,1,0],"
       "\"long_factor\":[1,1,1,1,1,1,1,1]}",
       "short_factor"},
      {"GraniteForCausalLM", ",\"logits_scaling\":0", "logits_scaling"},
  };
  for (const auto& [model_class, config, name] : cases) {
    SCOPED_TRACE(config);
    ExpectRefused(Cut(model_class, config).status(), absl::StatusCode::kInvalidArgument, name);
  }
}

TEST(ArchitecturesTest, ReadsYarnOfBothFormats) {
  const auto newer = Cut("LlamaForCausalLM",
                         ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":5e5,"
                         "\"factor\":4.0,\"original_max_position_embeddings\":64,\"mscale\":0.7,"
                         "\"mscale_all_dim\":0.9,\"beta_fast\":16,\"truncate\":false}");
  ASSERT_TRUE(newer.ok()) << newer.status();
  const RotarySettings& yarn = newer->chain.rotary[0];
  EXPECT_EQ(yarn.scaling, "yarn");
  EXPECT_EQ(yarn.original_context, 64u);
  EXPECT_EQ(yarn.mscale, 0.7);
  EXPECT_EQ(yarn.mscale_all_dim, 0.9);
  EXPECT_EQ(yarn.beta_fast, 16.0);
  EXPECT_FALSE(yarn.truncate);
  GgufWriter gguf = TinyGguf({});
  gguf.Text("llama.rope.scaling.type", "yarn")
      .F32("llama.rope.scaling.factor", 4)
      .U32("llama.rope.scaling.original_context_length", 64)
      .F32("llama.rope.scaling.yarn_attn_factor", 1.25f);
  const auto plan = CutGguf(gguf);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->chain.rotary[0].factor, 4.0);
  EXPECT_EQ(plan->chain.rotary[0].original_context, 64u);
  EXPECT_EQ(plan->chain.rotary[0].attention_factor, 1.25);
}

TEST(ArchitecturesTest, MultipliersBecomeAttributes) {
  const auto plan = Cut("GraniteForCausalLM",
                        ",\"embedding_multiplier\":12.0,\"attention_multiplier\":0.0625,"
                        "\"residual_multiplier\":0.22,\"logits_scaling\":8.0");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(*plan->blocks[0].attributes.Number("scale", 0, 99), 12.0);
  EXPECT_EQ(*plan->blocks[1].attributes.Number("scale", 0, 99), 0.0625);
  EXPECT_EQ(*plan->blocks[1].attributes.Number("residual_scale", 0, 99), 0.22);
  EXPECT_EQ(*plan->blocks[2].attributes.Number("residual_scale", 0, 99), 0.22);
  EXPECT_EQ(*plan->blocks.back().attributes.Number("scale", 0, 99), 0.125);
}

// q, k and v of one quantized tensor: each block's rows are bytes of the file.
TEST(ArchitecturesTest, DividesFusedTensorsOfGguf) {
  TinyCheckpoint tiny;
  tiny.layers = 1;
  tiny.skipped = {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"};
  GgufWriter gguf = TinyGguf(tiny);
  gguf.Tensor("blk.0.attn_qkv.weight", 8, {128, 64}, std::string(128 * 68, 1));
  const auto plan = CutGguf(gguf);
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::vector<std::string> names;
  for (const BlockPlan::Part& part : plan->blocks[1].tensors) names.push_back(part.tensor.name);
  for (const char* name : {"blk.0.attn_qkv.weight[0:64]", "blk.0.attn_qkv.weight[64:96]",
                           "blk.0.attn_qkv.weight[96:128]"}) {
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
}

// The text model of one that also sees images is the text model alone, whatever its names.
TEST(ArchitecturesTest, TakesGemmasTextModel) {
  const std::string shape =
      "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":1,\"head_dim\":16,"
      "\"sliding_window\":8,\"query_pre_attn_scalar\":16,\"num_attention_heads\":4,"
      "\"num_key_value_heads\":2,\"vocab_size\":40";
  const auto cut = [](const std::string& layers, const std::string& rest,
                      const std::string& config) -> StatusOr<ChainPlan> {
    testing::SafetensorsWriter weights;
    const auto add = [&weights](const std::string& name, const std::vector<uint64_t>& shape) {
      uint64_t elements = 1;
      for (const uint64_t dimension : shape) elements *= dimension;
      weights.Tensor(name, "F32", shape, testing::TinyBytes(elements * 4, 0, 1));
    };
    add(layers + "embed_tokens.weight", {40, 64});
    add(layers + "norm.weight", {64});
    const std::string layer = layers + "layers.0.";
    for (const char* norm : {"input_layernorm", "post_attention_layernorm",
                             "pre_feedforward_layernorm", "post_feedforward_layernorm"}) {
      add(absl::StrCat(layer, norm, ".weight"), {64});
    }
    for (const char* norm : {"q_norm", "k_norm"}) {
      add(absl::StrCat(layer, "self_attn.", norm, ".weight"), {16});
    }
    add(layer + "self_attn.q_proj.weight", {64, 64});
    add(layer + "self_attn.k_proj.weight", {32, 64});
    add(layer + "self_attn.v_proj.weight", {32, 64});
    add(layer + "self_attn.o_proj.weight", {64, 64});
    add(layer + "mlp.gate_proj.weight", {96, 64});
    add(layer + "mlp.up_proj.weight", {96, 64});
    add(layer + "mlp.down_proj.weight", {64, 96});
    if (!rest.empty()) add(rest, {8, 8});
    const TempDirectory directory;
    WriteFile(directory.path("model.safetensors"), weights.Build());
    WriteFile(directory.path("config.json"), config);
    return CutPath(directory.path());
  };
  const auto alone =
      cut("model.", "", absl::StrCat("{\"architectures\":[\"Gemma3ForCausalLM\"],", shape, "}"));
  ASSERT_TRUE(alone.ok()) << alone.status();
  const std::string whole = absl::StrCat(
      "{\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"text_config\":{", shape, "}}");
  const auto older = cut("language_model.model.", "vision_tower.w.weight", whole);
  const auto newer = cut("model.language_model.", "model.multi_modal_projector.w.weight", whole);
  ASSERT_TRUE(older.ok()) << older.status();
  ASSERT_TRUE(newer.ok()) << newer.status();
  for (const ChainPlan* plan : {&*older, &*newer}) {
    ASSERT_EQ(plan->blocks.size(), alone->blocks.size());
    EXPECT_EQ(plan->chain, alone->chain);
    for (size_t i = 0; i < plan->blocks.size(); ++i) {
      EXPECT_EQ(plan->blocks[i].attributes, alone->blocks[i].attributes);
      EXPECT_EQ(plan->blocks[i].tensors.size(), alone->blocks[i].tensors.size());
    }
  }
}

TEST(ArchitecturesTest, NoNameIsClaimedTwice) {
  ArchitectureRegistry registry;
  RegisterArchitectures(registry);
  std::set<std::string> unclaimed;
  for (const Architecture& architecture : registry.architectures()) {
    for (const std::string& alias : architecture.aliases) {
      if (architecture.claims != nullptr) continue;
      EXPECT_TRUE(unclaimed.insert(alias).second) << alias;
    }
  }
}

}  // namespace
}  // namespace tessera::blockzoo
