#include "server/core/zoo_model_source.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "tests/support/engine_fixture.h"
#include "tests/support/tiny_checkpoint.h"
#include "tests/unit/server/core/core_fixture.h"

namespace tessera::server {
namespace {

using testing::TempDirectory;
using testing::TinyCheckpoint;

// A zoo with three chains that share nothing.
class ZooModelSourceTest : public testing::EngineFixture {
 protected:
  void SetUp() override {
    EngineFixture::SetUp();
    Start();
    auto zoo = blockzoo::Zoo::Open(
        {.directory = directory_.path("zoo"), .mode = blockzoo::ZooMode::kCreate});
    ASSERT_TRUE(zoo.ok()) << zoo.status();
    zoo_ = std::move(*zoo);
    for (uint32_t seed : {1u, 2u, 3u}) {
      TinyCheckpoint tiny;
      tiny.seed = seed;
      testing::GgufWriter gguf = TinyGguf(tiny);
      gguf.Numbers("tokenizer.ggml.scores", testing::GgufWriter::kF32,
                   std::vector<float>(tiny.vocab, -1.0f));
      const std::string path = directory_.path("checkpoint.gguf");
      testing::WriteFile(path, gguf.Build());
      const auto report = zoo_->Import({.path = path, .name = absl::StrCat("m", seed)});
      ASSERT_TRUE(report.ok()) << report.status();
    }
  }
  void TearDown() override {
    registry_.reset();
    engine_.reset();
    pool_.Stop();
  }

  void Serve(uint64_t weight_budget, Settings settings = {}) {
    settings_ = std::make_unique<SettingsStore>(std::make_shared<const Settings>(settings), "",
                                                Overrides{});
    source_ =
        std::make_unique<ZooModelSource>(ZooModelSource::Parts{.zoo = zoo_.get(),
                                                               .binder = binder_.get(),
                                                               .engine = engine_.get(),
                                                               .settings = settings_.get(),
                                                               .pool = &pool_,
                                                               .weight_budget = weight_budget});
    registry_ = std::make_unique<ModelRegistry>(source_.get(), ModelRegistry::Options{});
  }
  StatusOr<ModelPtr> Acquire(const std::string& name) {
    std::promise<StatusOr<ModelPtr>> promise;
    registry_->Acquire(name, nullptr,
                       [&](StatusOr<ModelPtr> model) { promise.set_value(std::move(model)); });
    return promise.get_future().get();
  }
  ModelState StateOf(const std::string& name) {
    for (const ModelInfo& info : registry_->List()) {
      if (info.name == name) return info.state;
    }
    ADD_FAILURE() << name;
    return ModelState::kFailed;
  }

  const TempDirectory directory_;
  std::unique_ptr<blockzoo::Zoo> zoo_;
  WorkPool pool_{WorkPool::Options{}};
  std::unique_ptr<SettingsStore> settings_;
  std::unique_ptr<ZooModelSource> source_;
  std::unique_ptr<ModelRegistry> registry_;
};

TEST_F(ZooModelSourceTest, ServesEveryChainAndTheNamesOfTheSettings) {
  Settings settings;
  settings.models.push_back({.name = "alias", .chain = "m1", .max_context = 100});
  settings.models.push_back({.name = "gone", .chain = "nobody"});
  settings.models[0].defaults.temperature = 0.25;
  Serve(UINT64_MAX, settings);
  EXPECT_EQ(source_->Names(), (std::vector<std::string>{"alias", "m1", "m2", "m3"}));
  const StatusOr<ModelSummary> summary = source_->Describe("alias");
  ASSERT_TRUE(summary.ok());
  EXPECT_EQ(summary->max_context, 100u);
  EXPECT_EQ(summary->blocks, 8u);
  const StatusOr<ModelPtr> alias = Acquire("alias");
  const StatusOr<ModelPtr> plain = Acquire("m1");
  ASSERT_TRUE(alias.ok() && plain.ok()) << alias.status() << plain.status();
  EXPECT_EQ((*alias)->revision, summary->revision);
  EXPECT_EQ((*alias)->revision, (*plain)->revision);
  EXPECT_EQ((*alias)->max_context, 100u);
  EXPECT_EQ((*plain)->max_context, 256u);
  EXPECT_EQ((*alias)->defaults.temperature, 0.25);
  EXPECT_EQ((*plain)->defaults.temperature, std::nullopt);
  EXPECT_EQ((*plain)->vocab, 40u);
  EXPECT_EQ((*plain)->end_token_ids, std::vector<TokenId>{2});
  EXPECT_EQ((*plain)->chat_template, nullptr);
}

// Each model fits, two do not: the one before goes, whole, and nothing else has to.
TEST_F(ZooModelSourceTest, MakesRoomWithinTheBudget) {
  Serve(UINT64_MAX);
  const uint64_t bytes = (*Acquire("m1"))->weight_bytes;
  ASSERT_GT(bytes, 0u);
  registry_.reset();
  Serve(2 * bytes + bytes / 2);
  for (const char* name : {"m1", "m2"}) ASSERT_TRUE(Acquire(name).ok());
  // What is dropped stays mapped until the pool has time for it; the load waits for that.
  std::promise<void> open;
  const std::shared_future<void> gate = open.get_future().share();
  for (size_t i = 0; i < WorkPool::Options{}.threads; ++i) pool_.Post([gate] { gate.wait(); });
  std::thread opener([&open] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    open.set_value();
  });
  const StatusOr<ModelPtr> third = Acquire("m3");
  opener.join();
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_EQ(StateOf("m1"), ModelState::kUnloaded);
  EXPECT_EQ(StateOf("m2"), ModelState::kReady);
  EXPECT_LE(binder_->LiveWeightBytes(), 2 * bytes);
  const StatusOr<ModelPtr> second = Acquire("m2");
  EXPECT_EQ(Acquire("m1").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(StateOf("m2"), ModelState::kReady);
}

TEST_F(ZooModelSourceTest, AnUnloadedModelLeavesNothingBehind) {
  Serve(UINT64_MAX);
  ASSERT_TRUE(Acquire("m1").ok());
  std::promise<void> gone;
  ASSERT_TRUE(registry_->Unload("m1", [&] { gone.set_value(); }).ok());
  gone.get_future().wait();
  for (int i = 0; i < 6000 && binder_->LiveWeightBytes() > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(binder_->LiveWeightBytes(), 0u);
}

TEST(DefaultsOf, TakesWhatIsRightAndLeavesTheRest) {
  const SamplingDefaults good = DefaultsOf(
      R"({"temperature":0.6,"top_p":0.9,"top_k":50,"min_p":0.1,"typical_p":0.8,"repetition_penalty":1.1})");
  EXPECT_EQ(good.temperature, 0.6);
  EXPECT_EQ(good.top_p, 0.9);
  EXPECT_EQ(good.top_k, 50);
  EXPECT_EQ(good.min_p, 0.1);
  EXPECT_EQ(good.typical_p, 0.8);
  EXPECT_EQ(good.repetition_penalty, 1.1);
  const SamplingDefaults bad = DefaultsOf(
      R"({"temperature":"hot","top_p":0,"top_k":-3,"min_p":2,"typical_p":null,"repetition_penalty":99})");
  EXPECT_EQ(bad.temperature, std::nullopt);
  EXPECT_EQ(bad.top_p, std::nullopt);
  EXPECT_EQ(bad.top_k, std::nullopt);
  EXPECT_EQ(bad.min_p, std::nullopt);
  EXPECT_EQ(bad.typical_p, std::nullopt);
  EXPECT_EQ(bad.repetition_penalty, std::nullopt);
  EXPECT_EQ(DefaultsOf(R"({"do_sample":false,"temperature":0.6})").temperature, 0.0);
  EXPECT_EQ(DefaultsOf("").temperature, std::nullopt);
  EXPECT_EQ(DefaultsOf("[1]").temperature, std::nullopt);
}

TEST(Merge, KeepsTheUpperWhereItIsSet) {
  const SamplingDefaults merged =
      Merge({.temperature = 0.1, .max_tokens = 5}, {.temperature = 0.9, .top_k = 7});
  EXPECT_EQ(merged.temperature, 0.1);
  EXPECT_EQ(merged.top_k, 7);
  EXPECT_EQ(merged.max_tokens, 5);
  EXPECT_EQ(merged.top_p, std::nullopt);
}

TEST(MakeTokenTable, IdsBeyondTheTokenizerWriteNothing) {
  const auto tokenizer = testing::ByteTokenizer();
  const scheduler::TokenTable table = MakeTokenTable(*tokenizer, testing::kByteVocab);
  ASSERT_EQ(table.offsets.size(), testing::kByteVocab + 1);
  EXPECT_EQ(table.Of('a'), "a");
  EXPECT_EQ(table.Of(testing::kToolToken), "<tool>");
  EXPECT_EQ(table.Of(testing::kByteVocab - 1), "");
}

}  // namespace
}  // namespace tessera::server
