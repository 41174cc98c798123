// Synthetic chains in a zoo: shared, verified, collected and loaded like others.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "blockzoo/chain.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_report.h"
#include "tests/support/test_data.h"
#include "tests/support/tiny_checkpoint.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;
using testing::TempDirectory;
using testing::WriteFile;

class ZooSynthTest : public ::testing::Test {
 protected:
  void SetUp() override { zoo_ = OpenZoo(ZooMode::kCreate, UINT64_MAX); }
  std::unique_ptr<Zoo> OpenZoo(ZooMode mode, uint64_t memory_bytes) {
    StatusOr<std::unique_ptr<Zoo>> zoo = Zoo::Open(
        {.directory = directory_.path("zoo"), .mode = mode, .memory_bytes = memory_bytes});
    EXPECT_TRUE(zoo.ok()) << zoo.status();
    return zoo.ok() ? *std::move(zoo) : nullptr;
  }
  SynthReport Synth(const SynthOptions& options) {
    const StatusOr<SynthReport> report = zoo_->Synthesise(options);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(SynthReport());
  }
  void ExpectSound() {
    const StatusOr<VerifyReport> report = zoo_->Verify(nullptr);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->problems.empty()) << Render(*report);
  }
  uint64_t BytesOnDisk() {
    uint64_t bytes = 0;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(directory_.path("zoo"))) {
      if (entry.is_regular_file()) bytes += entry.file_size();
    }
    return bytes;
  }
  TensorRef Tensor(const ChainManifest& chain, size_t block, const char* role) {
    const StatusOr<BlockManifest> manifest = zoo_->Block(chain.blocks[block]);
    EXPECT_TRUE(manifest.ok()) << manifest.status();
    const TensorRef* ref = manifest->Find(role);
    EXPECT_NE(ref, nullptr) << role;
    return ref == nullptr ? TensorRef() : *ref;
  }

  const TempDirectory directory_;
  std::unique_ptr<Zoo> zoo_;
};

TEST_F(ZooSynthTest, ALargeModelIsSmallOnDisk) {
  const SynthReport report = Synth({.like = "llama-3-8b", .name = "big", .seed = 7});
  EXPECT_GT(report.weight_bytes, uint64_t{16'000'000'000});
  EXPECT_LT(BytesOnDisk(), 200'000u);
  EXPECT_LT(report.seconds, 60);
  const StatusOr<ZooListing> listing = zoo_->List();
  ASSERT_TRUE(listing.ok());
  EXPECT_EQ(listing->made_bytes, report.weight_bytes);
  EXPECT_EQ(listing->distinct_bytes, report.weight_bytes);
  EXPECT_NE(Render(*listing).find("0 B stored for 15.0 GiB of weights, 15.0 GiB made at load"),
            std::string::npos)
      << Render(*listing);
  const StatusOr<ChainDetails> details = zoo_->Show("big");
  ASSERT_TRUE(details.ok());
  // All norms are one tensor.
  EXPECT_EQ(details->summary.parameters, 8'030'261'248u - 64 * 4096);
  EXPECT_NE(Render(*details).find("15.0 GiB made at load"), std::string::npos);
  ExpectSound();
}

TEST_F(ZooSynthTest, TheSameSeedIsTheSameChain) {
  const ChainManifest chain = Synth({.like = "tiny", .name = "a", .seed = 1}).chains[0];
  EXPECT_EQ(Synth({.like = "tiny", .name = "a", .seed = 1}).new_objects, 0u);
  const SynthReport again = Synth({.like = "tiny", .name = "b", .seed = 1});
  EXPECT_EQ(RevisionOf(again.chains[0]), RevisionOf(chain));
  EXPECT_EQ(again.new_objects, 0u);
  const SynthReport other = Synth({.like = "tiny", .name = "c", .seed = 2});
  EXPECT_NE(RevisionOf(other.chains[0]), RevisionOf(chain));
  EXPECT_TRUE(
      absl::IsAlreadyExists(zoo_->Synthesise({.like = "tiny", .name = "a", .seed = 2}).status()));
  EXPECT_TRUE(zoo_->Synthesise(
                      {.like = "tiny", .name = "a", .seed = 2, .existing = ExistingChain::kReplace})
                  .ok());
  EXPECT_EQ(RevisionOf(*zoo_->Chain("a")), RevisionOf(other.chains[0]));
}

TEST_F(ZooSynthTest, VariantsShareTheirLowerLayers) {
  const SynthReport report =
      Synth({.like = "tiny", .name = "v", .seed = 3, .variants = 3, .shared_layers = 3});
  ASSERT_EQ(report.chains.size(), 3u);
  EXPECT_EQ(report.chains[2].name, "v-3");
  for (const size_t other : {1u, 2u}) {
    for (size_t block = 0; block < 10; ++block) {
      const bool own = block == 7 || block == 8;
      EXPECT_EQ(report.chains[0].blocks[block] == report.chains[other].blocks[block], !own)
          << block;
    }
  }
  EXPECT_NE(report.chains[1].blocks[7], report.chains[2].blocks[7]);
  const SynthReport base = Synth({.like = "tiny", .name = "base", .seed = 3});
  EXPECT_EQ(RevisionOf(base.chains[0]), RevisionOf(report.chains[0]));
  EXPECT_TRUE(absl::IsInvalidArgument(
      zoo_->Synthesise({.like = "tiny", .name = "w", .variants = 2, .shared_layers = 5}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      zoo_->Synthesise({.like = "tiny", .name = "w", .variants = 0}).status()));
}

TEST_F(ZooSynthTest, MaterialisedBytesAreThoseOfTheRecipe) {
  for (const DType dtype : {DType::kBF16, DType::kF8Block128, DType::kI4G128Zero}) {
    const std::string name = kernels::InfoOf(dtype).name;
    const ChainManifest recipes =
        Synth({.like = "tiny", .name = name + ".r", .seed = 4, .dtype = dtype}).chains[0];
    const SynthReport bytes = Synth({.like = "tiny",
                                     .name = name + ".b",
                                     .seed = 4,
                                     .dtype = dtype,
                                     .storage = SyntheticStorage::kBytes});
    EXPECT_GT(bytes.new_bytes, bytes.weight_bytes / 2);
    for (const char* role : {"q", "norm", "o"}) {
      const TensorRef made = Tensor(recipes, 3, role);
      const TensorRef stored = Tensor(bytes.chains[0], 3, role);
      EXPECT_NE(made.tensor, stored.tensor);
      EXPECT_EQ(made.dtype, stored.dtype);
      const WeightHandle a = *zoo_->Canonical(made);
      const WeightHandle b = *zoo_->Canonical(stored);
      ASSERT_EQ(a.size(), b.size());
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size()), 0) << name << " " << role;
      EXPECT_TRUE(zoo_->Recipe(made)->has_value());
      EXPECT_FALSE(zoo_->Recipe(stored)->has_value());
    }
  }
  ExpectSound();
}

TEST_F(ZooSynthTest, NothingThatIsMadeGoesToDisk) {
  const ChainManifest chain = Synth({.like = "tiny", .name = "a"}).chains[0];
  const TensorRef q = Tensor(chain, 1, "q");
  const uint64_t before = BytesOnDisk();
  {
    const auto weight = zoo_->Derived(q, "t", 8, [](auto canonical, std::span<std::byte> to) {
      std::memcpy(to.data(), canonical.data(), to.size());
    });
    ASSERT_TRUE(weight.ok()) << weight.status();
    EXPECT_EQ(std::memcmp(weight->data(), zoo_->Canonical(q)->data(), 8), 0);
    EXPECT_EQ(zoo_->InUse().anonymous_bytes, 8u);
    EXPECT_EQ(zoo_->InUse().mapped_bytes, 0u);
  }
  EXPECT_EQ(BytesOnDisk(), before);
}

TEST_F(ZooSynthTest, MemoryForWhatIsMadeIsBounded) {
  const ChainManifest chain = Synth({.like = "tiny", .name = "a"}).chains[0];
  const TensorRef q = Tensor(chain, 1, "q");
  const TensorRef o = Tensor(chain, 1, "o");
  const uint64_t bytes = *TensorBytes(q.dtype, q.shape);
  const auto zoo = OpenZoo(ZooMode::kReadOnly, bytes + 100);
  {
    const auto first = zoo->Canonical(q);
    ASSERT_TRUE(first.ok()) << first.status();
    const Status second = zoo->Canonical(o).status();
    EXPECT_TRUE(absl::IsResourceExhausted(second)) << second;
  }
  EXPECT_TRUE(zoo->Canonical(o).ok());
}

TEST_F(ZooSynthTest, VerifyFindsDamageAndGcSweepsRecipes) {
  const ChainManifest chain = Synth({.like = "tiny", .name = "a"}).chains[0];
  Synth({.like = "tiny", .name = "b", .seed = 9});
  const TensorRef q = Tensor(chain, 1, "q");
  const std::string hex = q.tensor.Hex();
  const std::string path = directory_.path("zoo/objects/recipes/" + hex.substr(0, 2) + "/" + hex);
  const std::string text = testing::ReadWholeFile(path);
  const auto damaged = [&](const std::string& changed) {
    WriteFile(path, changed);
    EXPECT_FALSE(zoo_->Verify(nullptr)->problems.empty()) << changed;
    EXPECT_TRUE(absl::IsDataLoss(zoo_->Canonical(q).status())) << changed;
    WriteFile(path, text);
  };
  damaged(text.substr(0, text.size() - 1));
  damaged(std::string(text).replace(text.find("\"seed\":") + 7, 1, "9"));
  damaged(std::string(5000, ' '));
  std::filesystem::remove(path);
  EXPECT_FALSE(zoo_->Verify(nullptr)->problems.empty());
  EXPECT_TRUE(absl::IsNotFound(zoo_->Canonical(q).status()));
  EXPECT_EQ(Synth({.like = "tiny", .name = "a"}).new_objects, 1u);  // repaired
  ExpectSound();
  TensorRef wrong = q;
  wrong.shape = {q.shape[0], q.shape[1] + 1};
  EXPECT_TRUE(absl::IsDataLoss(zoo_->Canonical(wrong).status()));
  ASSERT_TRUE(zoo_->Remove("b").ok());
  const StatusOr<GcReport> gc = zoo_->Gc({});
  ASSERT_TRUE(gc.ok()) << gc.status();
  EXPECT_GT(gc->objects, 30u);
  ExpectSound();
  EXPECT_TRUE(zoo_->Canonical(q).ok());
}

// Every type that can be made is served: the chain binds, and what it maps is what it says.
TEST_F(ZooSynthTest, EveryTypeBindsOnTheCpu) {
  const std::shared_ptr<const kernels::Backend> backend =
      kernels::MakeCpuBackend(kernels::CpuIsa::kAuto).value();
  for (int i = 0; i < kernels::kWeightTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (kernels::SyntheticDeviation(dtype) == 0) continue;
    const SynthReport report =
        Synth({.like = "tiny", .name = kernels::InfoOf(dtype).name, .dtype = dtype});
    ChainBinder binder(backend, {});
    const auto chain = binder.Bind(report.chains[0], *zoo_);
    ASSERT_TRUE(chain.ok()) << chain.status();
    EXPECT_EQ((*chain)->weight_bytes(), report.weight_bytes);
  }
}

}  // namespace
}  // namespace tessera::blockzoo
