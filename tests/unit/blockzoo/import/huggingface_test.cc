#include <gtest/gtest.h>

#include <filesystem>

#include "blockzoo/import/format.h"
#include "blockzoo/import/huggingface_metadata.h"
#include "tests/support/tiny_checkpoint.h"

namespace tessera::blockzoo {
namespace {

using testing::SafetensorsWriter;
using testing::TempDirectory;
using testing::WriteFile;
using testing::WriteTinyHuggingFace;

TEST(HuggingFaceTest, FlattensSettings) {
  const auto settings = HuggingFaceSettings(
      R"({"a":1,"b":{"c":true,"d":null,"e":{"f":2.5}},"g":["x","y"],"h":[1,2]})");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(*settings->Integer("a", 0, 9), 1);
  EXPECT_EQ(*settings->Integer("b.c", 0, 1), 1);
  EXPECT_FALSE(settings->Has("b.d"));
  EXPECT_EQ(*settings->Number("b.e.f", 0, 9), 2.5);
  EXPECT_EQ(*settings->Text("g.1"), "y");
  EXPECT_EQ(settings->Numbers("h")->size(), 2u);
  EXPECT_FALSE(HuggingFaceSettings("[]").ok());
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += "{\"a\":";
  EXPECT_FALSE(HuggingFaceSettings(deep + "1" + std::string(1000, '}')).ok());
}

TEST(HuggingFaceTest, ReadsShards) {
  const TempDirectory directory;
  const std::string model = directory.path("m");
  std::filesystem::create_directories(model);
  WriteFile(model + "/config.json", R"({"architectures":["LlamaForCausalLM"]})");
  WriteFile(model + "/a.safetensors", SafetensorsWriter().Tensor("x", "F32", {1}, "xxxx").Build());
  WriteFile(model + "/b.safetensors", SafetensorsWriter().Tensor("y", "F32", {1}, "yyyy").Build());
  const std::string index = model + "/model.safetensors.index.json";
  WriteFile(index, R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})");
  auto checkpoint = OpenCheckpoint(model);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->format(), "huggingface");
  EXPECT_EQ((*checkpoint)->TensorNames(), (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(static_cast<char>((*checkpoint)->Tensor("y")->bytes[0]), 'y');
  EXPECT_TRUE(absl::IsNotFound((*checkpoint)->Tensor("z").status()));

  WriteFile(index, R"({"weight_map":{"x":"a.safetensors","z":"b.safetensors"}})");
  EXPECT_TRUE(absl::IsInvalidArgument(OpenCheckpoint(model).status()));
  WriteFile(index, R"({"weight_map":{"x":"c.safetensors"}})");
  EXPECT_TRUE(absl::IsNotFound(OpenCheckpoint(model).status()));
  for (const char* name : {"../a.safetensors", "/etc/passwd", "", ".hidden", "d/a.safetensors"}) {
    WriteFile(index, std::string(R"({"weight_map":{"x":")") + name + "\"}}");
    EXPECT_TRUE(absl::IsInvalidArgument(OpenCheckpoint(model).status())) << name;
  }
}

TEST(HuggingFaceTest, FindsTheChatTemplate) {
  const TempDirectory directory;
  const auto asset = [&] {
    const auto assets = HuggingFaceAssets(directory.path());
    return assets.ok() ? assets->count("chat_template") ? assets->at("chat_template") : "none"
                       : "error: " + std::string(assets.status().message());
  };
  EXPECT_EQ(asset(), "none");
  const std::string config = directory.path("tokenizer_config.json");
  WriteFile(config, R"({"chat_template":"one"})");
  EXPECT_EQ(asset(), "one");
  WriteFile(config, R"({"chat_template":[{"name":"tool","template":"t"},)"
                    R"({"name":"default","template":"two"}]})");
  EXPECT_EQ(asset(), "two");
  WriteFile(config, R"({"chat_template":[{"name":"tool","template":"t"}]})");
  EXPECT_EQ(asset().substr(0, 6), "error:");
  WriteFile(config, R"({"chat_template":5})");
  EXPECT_EQ(asset().substr(0, 6), "error:");
  WriteFile(config, "{}");
  WriteFile(directory.path("chat_template.jinja"), "three");
  EXPECT_EQ(asset(), "three");
}

TEST(HuggingFaceTest, CollectsEndTokens) {
  Attributes settings;
  settings.Set("eos_token_id", int64_t{1});
  const std::map<std::string, std::string> assets = {
      {"generation_config.json", R"({"eos_token_id":[2,3]})"},
      {"tokenizer_config.json", R"({"eos_token":{"content":"</end>"}})"},
      {"tokenizer.json",
       R"({"added_tokens":[{"id":4,"content":"</end>"},{"id":5,"content":"<|im_end|>"},)"
       R"({"id":6,"content":"<|eot_id|>"}]})"},
      {"chat_template", "x<|im_end|>"},
  };
  EXPECT_EQ(*HuggingFaceEndTokenIds(settings, assets), (std::vector<uint32_t>{1, 2, 3, 4, 5}));
  EXPECT_TRUE(HuggingFaceEndTokenIds(Attributes(), {})->empty());
}

TEST(HuggingFaceTest, RefusesOtherDirectories) {
  const TempDirectory directory;
  EXPECT_TRUE(absl::IsInvalidArgument(OpenCheckpoint(directory.path()).status()));
  EXPECT_TRUE(absl::IsNotFound(OpenCheckpoint(directory.path("absent")).status()));
  WriteFile(directory.path("config.json"), "{}");
  EXPECT_TRUE(absl::IsNotFound(OpenCheckpoint(directory.path()).status()));
}

}  // namespace
}  // namespace tessera::blockzoo
