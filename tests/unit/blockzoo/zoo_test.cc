#include "blockzoo/zoo.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "blockzoo/import/format.h"
#include "blockzoo/zoo_report.h"
#include "tests/support/test_data.h"
#include "tests/support/tiny_checkpoint.h"

namespace tessera::blockzoo {
namespace {

using testing::TempDirectory;
using testing::TinyCheckpoint;
using testing::TinyGguf;
using testing::WriteFile;

class ZooTest : public ::testing::Test {
 protected:
  std::unique_ptr<Zoo> OpenZoo(ZooMode mode = ZooMode::kCreate) {
    StatusOr<std::unique_ptr<Zoo>> zoo = Zoo::Open({.directory = directory_.path("zoo"),
                                                    .mode = mode,
                                                    .lock_wait = std::chrono::milliseconds(200)});
    EXPECT_TRUE(zoo.ok()) << zoo.status();
    return zoo.ok() ? *std::move(zoo) : nullptr;
  }
  std::string Gguf(const std::string& name, const TinyCheckpoint& tiny) {
    const std::string path = directory_.path(name + ".gguf");
    WriteFile(path, TinyGguf(tiny).Build());
    return path;
  }
  static ImportReport Import(Zoo& zoo, const std::string& path, const std::string& name) {
    const StatusOr<ImportReport> report = zoo.Import({.path = path, .name = name});
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(ImportReport());
  }
  static void ExpectSound(const Zoo& zoo) {
    const StatusOr<VerifyReport> report = zoo.Verify(nullptr);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->problems.empty()) << Render(*report);
  }
  // The files under objects/tensors.
  std::vector<std::string> TensorFiles() {
    std::vector<std::string> files;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(directory_.path("zoo/objects/tensors"))) {
      if (entry.is_regular_file()) files.push_back(entry.path().string());
    }
    return files;
  }

  const TempDirectory directory_;
};

TEST_F(ZooTest, KeepsTheBytesOfEveryElementType) {
  const auto zoo = OpenZoo();
  for (const uint32_t type : {0u, 1u, 2u, 3u, 8u, 30u}) {
    const std::string path = Gguf("m", {.matrix_type = type});
    const ChainManifest chain = Import(*zoo, path, absl::StrCat("t", type)).chain;
    const auto checkpoint = OpenCheckpoint(path);
    ASSERT_TRUE(checkpoint.ok());
    const StatusOr<BlockManifest> block = zoo->Block(chain.blocks[3]);
    ASSERT_TRUE(block.ok()) << block.status();
    const TensorRef* q = block->Find("q");
    ASSERT_NE(q, nullptr);
    const StatusOr<WeightHandle> weight = zoo->Canonical(*q);
    ASSERT_TRUE(weight.ok()) << weight.status();
    const CheckpointTensor source = *(*checkpoint)->Tensor("blk.1.attn_q.weight");
    ASSERT_EQ(weight->size(), source.bytes.size());
    EXPECT_EQ(std::memcmp(weight->data(), source.bytes.data(), weight->size()), 0);
    EXPECT_EQ(q->dtype, source.dtype);
  }
  ExpectSound(*zoo);
}

TEST_F(ZooTest, SecondModelAddsOnlyItsOwnBytes) {
  const auto zoo = OpenZoo();
  Import(*zoo, Gguf("a", {}), "a");
  const ImportReport again = Import(*zoo, Gguf("a2", {}), "a2");
  EXPECT_LT(again.new_bytes, 8192u);  // the record of a file of another name
  const ImportReport report = Import(*zoo, Gguf("b", {.upper_seed = 2, .upper_from = 2}), "b");
  const uint64_t layer = (64 * 64 * 2 + 32 * 64 * 2 + 3 * 96 * 64 + 2 * 64) * 4;
  EXPECT_GE(report.new_bytes, layer);
  EXPECT_LT(report.new_bytes, layer + 8192);  // two block manifests and the record
  const StatusOr<ChainDiff> diff = zoo->Diff("a", "b");
  ASSERT_TRUE(diff.ok());
  EXPECT_EQ(diff->equal_blocks, 6u);
  ASSERT_EQ(diff->blocks.size(), 2u);
  EXPECT_EQ(diff->blocks[0].position, 5u);
  EXPECT_EQ(diff->blocks[0].type, "attention");
  EXPECT_EQ(diff->blocks[0].what.size(), 5u);
  EXPECT_EQ(diff->only_a_bytes, layer);
  EXPECT_EQ(diff->only_b_bytes, layer);
  const StatusOr<ZooListing> listing = zoo->List();
  ASSERT_TRUE(listing.ok());
  ASSERT_EQ(listing->chains.size(), 3u);
  EXPECT_EQ(listing->chains[2].unique_bytes, layer);
  EXPECT_EQ(listing->summed_bytes, 3 * listing->chains[0].weight_bytes);
  EXPECT_EQ(listing->distinct_bytes, listing->chains[0].weight_bytes + layer);
  EXPECT_NE(Render(*listing).find("3 chains"), std::string::npos);
}

TEST_F(ZooTest, BothFormatsShareWhatIsEqual) {
  const auto zoo = OpenZoo();
  Import(*zoo, Gguf("a", {}), "gguf");
  testing::WriteTinyHuggingFace({}, directory_.path("hf"));
  const ImportReport report = Import(*zoo, directory_.path("hf"), "hf");
  EXPECT_LT(report.new_bytes, 16384u);  // manifests alone: the rotation differs
}

TEST_F(ZooTest, ATakenNameIsKeptUnlessReplaced) {
  const auto zoo = OpenZoo();
  const std::string path = Gguf("a", {});
  Import(*zoo, path, "m");
  EXPECT_EQ(Import(*zoo, path, "m").outcome, ImportReport::Outcome::kAlreadyThere);
  const std::string other = Gguf("b", {.seed = 5});
  const Status status = zoo->Import({.path = other, .name = "m"}).status();
  EXPECT_TRUE(absl::IsAlreadyExists(status)) << status;
  const auto replaced =
      zoo->Import({.path = other, .name = "m", .existing = ExistingChain::kReplace});
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  EXPECT_EQ(replaced->outcome, ImportReport::Outcome::kReplaced);
  EXPECT_EQ(RevisionOf(*zoo->Chain("m")), RevisionOf(replaced->chain));
  ExpectSound(*zoo);
}

TEST_F(ZooTest, RefusesNamesThatAreNoFileNames) {
  const auto zoo = OpenZoo();
  const std::string path = Gguf("a", {});
  for (const std::string& name : {std::string(), std::string("a/b"), std::string(".a"),
                                  std::string("a b"), std::string(129, 'a'), std::string("é")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(zoo->Import({.path = path, .name = name}).status()));
    EXPECT_TRUE(absl::IsInvalidArgument(zoo->Chain(name).status()));
  }
  Import(*zoo, path, std::string(128, 'a'));
  Import(*zoo, path, "org:model-1.0_x");
}

TEST_F(ZooTest, WeightsAreSharedAndUnmappedWithTheLastHandle) {
  const auto zoo = OpenZoo();
  const ChainManifest chain = Import(*zoo, Gguf("a", {}), "a").chain;
  const TensorRef table = zoo->Block(chain.blocks[0])->tensors[0];
  {
    const WeightHandle one = *zoo->Canonical(table);
    const WeightHandle two = *zoo->Canonical(table);
    EXPECT_EQ(one.data(), two.data());
    EXPECT_EQ(zoo->InUse().mapped_bytes, one.size());
  }
  EXPECT_EQ(zoo->InUse().mapped_bytes, 0u);
  TensorRef wrong = table;
  wrong.shape[0] += 1;
  EXPECT_TRUE(absl::IsDataLoss(zoo->Canonical(wrong).status()));
  wrong.tensor.bytes[0] ^= 1;
  EXPECT_TRUE(absl::IsNotFound(zoo->Canonical(wrong).status()));
}

TEST_F(ZooTest, DerivedIsMadeOnceAndAgainWhenCutShort) {
  const auto zoo = OpenZoo();
  const ChainManifest chain = Import(*zoo, Gguf("a", {}), "a").chain;
  const TensorRef table = zoo->Block(chain.blocks[0])->tensors[0];
  int made = 0;
  const Derive reverse = [&made](std::span<const std::byte> from, std::span<std::byte> to) {
    ++made;
    std::reverse_copy(from.begin(), from.end(), to.begin());
  };
  const uint64_t bytes = 40 * 64 * 4;
  const auto first = [&] {
    const StatusOr<WeightHandle> weight = zoo->Derived(table, "test.v1", bytes, reverse);
    EXPECT_TRUE(weight.ok()) << weight.status();
    EXPECT_EQ(weight->size(), bytes);
    return weight->data()[0] == zoo->Canonical(table)->data()[bytes - 1];
  };
  EXPECT_TRUE(first());
  EXPECT_TRUE(first());
  EXPECT_EQ(made, 1);
  ExpectSound(*zoo);
  const std::string file = directory_.path("zoo/derived/test.v1/" + table.tensor.Hex());
  std::filesystem::resize_file(file, bytes - 1);
  EXPECT_FALSE(zoo->Verify(nullptr)->problems.empty());
  EXPECT_TRUE(first());
  EXPECT_EQ(made, 2);
  ExpectSound(*zoo);
  EXPECT_TRUE(absl::IsInvalidArgument(zoo->Derived(table, "../test", bytes, reverse).status()));
  EXPECT_EQ(zoo->Gc({.derived = DerivedFiles::kDropAll})->derived, 1u);
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST_F(ZooTest, ThreadsGetTheSameMemory) {
  const auto zoo = OpenZoo();
  const ChainManifest chain = Import(*zoo, Gguf("a", {}), "a").chain;
  const TensorRef table = zoo->Block(chain.blocks[0])->tensors[0];
  std::atomic<int> made = 0;
  const Derive fill = [&made](auto, std::span<std::byte> to) {
    ++made;
    std::fill(to.begin(), to.end(), std::byte{1});
  };
  std::vector<WeightHandle> handles(8);
  std::vector<std::thread> threads;
  for (WeightHandle& handle : handles) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        static_cast<void>(*zoo->Canonical(table));
        static_cast<void>(zoo->InUse());
      }
      handle = *zoo->Derived(table, "t", 64, fill);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const WeightHandle& handle : handles) EXPECT_EQ(handle.data(), handles[0].data());
  EXPECT_EQ(made, 1);
}

TEST_F(ZooTest, AReadOnlyZooServesAndWritesNothing) {
  const ChainManifest chain = Import(*OpenZoo(), Gguf("a", {}), "a").chain;
  const auto zoo = OpenZoo(ZooMode::kReadOnly);
  const auto files = [&] {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::recursive_directory_iterator(directory_.path("zoo"))) {
      ++count;
    }
    return count;
  };
  const size_t before = files();
  const StatusOr<PinnedChain> pinned = zoo->Pin("a");
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  const TensorRef table = zoo->Block(pinned->chain.blocks[0])->tensors[0];
  const auto weight = zoo->Derived(table, "t", 8, [](auto, std::span<std::byte> to) {
    std::fill(to.begin(), to.end(), std::byte{7});
  });
  ASSERT_TRUE(weight.ok());
  EXPECT_EQ(weight->data()[7], std::byte{7});
  EXPECT_EQ(zoo->InUse().anonymous_bytes, 8u);
  EXPECT_EQ(files(), before);
  EXPECT_TRUE(absl::IsFailedPrecondition(zoo->Remove("a")));
  EXPECT_TRUE(absl::IsFailedPrecondition(zoo->Gc({}).status()));
}

TEST_F(ZooTest, GcKeepsWhatChainsAndLivePinsUse) {
  auto zoo = OpenZoo();
  Import(*zoo, Gguf("a", {}), "a");
  Import(*zoo, Gguf("b", {.seed = 9}), "b");
  {
    StatusOr<PinnedChain> pinned = zoo->Pin("b");
    ASSERT_TRUE(pinned.ok()) << pinned.status();
    ASSERT_TRUE(zoo->Remove("b").ok());
    StatusOr<GcReport> report = zoo->Gc({});
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->objects, 0u);
    EXPECT_EQ(report->pinned_chains, std::vector<std::string>{"b"});
    for (const Digest& digest : pinned->chain.blocks) EXPECT_TRUE(zoo->Block(digest).ok());
  }
  const StatusOr<GcReport> planned = zoo->Gc({.effect = GcEffect::kDryRun});
  ASSERT_TRUE(planned.ok());
  EXPECT_GT(planned->objects, 20u);
  const size_t before = TensorFiles().size();
  const StatusOr<GcReport> report = zoo->Gc({});
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->objects, planned->objects);
  EXPECT_EQ(report->freed_bytes, planned->freed_bytes);
  EXPECT_LT(TensorFiles().size(), before);
  ExpectSound(*zoo);
  EXPECT_TRUE(zoo->Chain("a").ok());
}

TEST_F(ZooTest, ThePinsOfADeadProcessAreStale) {
  Import(*OpenZoo(), Gguf("a", {}), "a");
  const pid_t child = fork();
  if (child == 0) {
    const auto zoo = OpenZoo();
    const StatusOr<PinnedChain> pinned = zoo->Pin("a");
    _exit(pinned.ok() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  const auto zoo = OpenZoo();
  ASSERT_TRUE(zoo->Remove("a").ok());
  const StatusOr<GcReport> report = zoo->Gc({});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->stale_pins, 1u);
  EXPECT_EQ(report->kept_objects, 0u);
  EXPECT_TRUE(TensorFiles().empty());
}

TEST_F(ZooTest, VerifyFindsEveryKindOfDamage) {
  const auto zoo = OpenZoo();
  const ChainManifest chain = Import(*zoo, Gguf("a", {}), "a").chain;
  const auto problems = [&] { return zoo->Verify(nullptr)->problems; };
  const auto damaged = [&](const std::string& path, const auto& damage) {
    const std::string before = testing::ReadWholeFile(path);
    damage(path, before);
    const std::vector<std::string> found = problems();
    EXPECT_FALSE(found.empty()) << path;
    WriteFile(path, before);
    EXPECT_TRUE(problems().empty()) << path;
  };
  const auto flip = [](const std::string& path, std::string text) {
    text[text.size() / 2] ^= 1;
    WriteFile(path, text);
  };
  const auto cut = [](const std::string& path, std::string text) {
    WriteFile(path, text.substr(0, text.size() - 2));
  };
  const auto remove = [](const std::string& path, const std::string&) {
    std::filesystem::remove(path);
  };
  const std::string root = directory_.path("zoo/");
  const std::string block = chain.blocks[2].Hex();
  const std::string asset = chain.assets.begin()->second.Hex();
  for (const std::string& path :
       {TensorFiles()[3], root + "objects/blocks/" + block.substr(0, 2) + "/" + block,
        root + "objects/assets/" + asset.substr(0, 2) + "/" + asset}) {
    damaged(path, flip);
    damaged(path, cut);
    damaged(path, remove);
  }
  damaged(root + "chains/a.json", cut);
  // What a damaged chain uses is unknown, so gc must not remove anything.
  WriteFile(root + "chains/a.json", "{");
  EXPECT_TRUE(absl::IsDataLoss(zoo->Gc({}).status()));
  EXPECT_TRUE(zoo->Remove("a").ok());
  EXPECT_TRUE(zoo->Gc({}).ok());
}

TEST_F(ZooTest, ComposesChecked) {
  const auto zoo = OpenZoo();
  Import(*zoo, Gguf("a", {}), "a");
  Import(*zoo, Gguf("b", {.seed = 4}), "b");
  Import(*zoo, Gguf("wide", {.width = 32, .q_heads = 2, .kv_heads = 1}), "wide");
  Import(*zoo, Gguf("words", {.vocab = 48}), "words");
  WriteFile(directory_.path("rope.gguf"), TinyGguf({}).F32("llama.rope.freq_base", 5e5f).Build());
  Import(*zoo, directory_.path("rope.gguf"), "rope");
  const auto chain =
      zoo->Compose({.name = "mix", .pieces = {{"a", 0, 5}, {"b", 5, ComposePiece::kToEnd}}});
  ASSERT_TRUE(chain.ok()) << chain.status();
  EXPECT_EQ(chain->blocks.size(), 8u);
  EXPECT_EQ(chain->blocks[4], zoo->Chain("a")->blocks[4]);
  EXPECT_EQ(chain->blocks[5], zoo->Chain("b")->blocks[5]);
  EXPECT_EQ(chain->rotary, zoo->Chain("a")->rotary);
  EXPECT_EQ(*zoo->Chain("mix"), *chain);
  const auto refused = [&](std::vector<ComposePiece> pieces, const char* why) {
    const Status status = zoo->Compose({.name = "bad", .pieces = std::move(pieces)}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_NE(status.message().find(why), absl::string_view::npos) << status;
  };
  refused({}, "no pieces");
  refused({{"a", 1}}, "must be embedding");
  refused({{"a", 0, 5}}, "must be lm_head");
  refused({{"a", 0, 8}, {"b", 0, 8}}, "only be at an end");
  refused({{"a", 0, 5}, {"wide", 5}}, "width");
  refused({{"a", 0, 5}, {"words", 5}}, "tokenizer");
  refused({{"a", 0, 5}, {"rope", 5}}, "rotary");
  refused({{"a", 5, 5}}, "blocks 0 to 8");
  refused({{"a", 0, 9}}, "blocks 0 to 8");
  EXPECT_TRUE(zoo->Compose({.name = "ffn", .pieces = {{"a", 0, 6}, {"rope", 6}}}).ok());
  EXPECT_TRUE(absl::IsNotFound(zoo->Compose({.name = "x", .pieces = {{"absent"}}}).status()));
  EXPECT_TRUE(absl::IsAlreadyExists(zoo->Compose({.name = "a", .pieces = {{"b"}}}).status()));
  ExpectSound(*zoo);
}

TEST_F(ZooTest, ReadsPieces) {
  EXPECT_EQ(ParseComposePiece("a")->end, ComposePiece::kToEnd);
  EXPECT_EQ(ParseComposePiece("a[3:]")->begin, 3u);
  EXPECT_EQ(ParseComposePiece("a:b[3:5]")->end, 5u);
  EXPECT_EQ(ParseComposePiece("a:b[3:5]")->chain, "a:b");
  for (const char* text : {"", "a[", "a[]", "a[3]", "a[3:5", "a[x:5]", "a[-1:5]", "[1:2]"}) {
    EXPECT_FALSE(ParseComposePiece(text).ok()) << text;
  }
}

TEST_F(ZooTest, AnotherWriterIsWaitedForThenNamed) {
  const auto zoo = OpenZoo();
  Import(*zoo, Gguf("a", {}), "a");
  StatusOr<FileLock> lock = FileLock::Take(directory_.path("zoo/lock"), LockKind::kExclusive,
                                           "import other", std::chrono::milliseconds(0));
  ASSERT_TRUE(lock.ok());
  const Status status = zoo->Remove("a");
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_NE(status.message().find("import other"), absl::string_view::npos) << status;
  // Serving does not wait for a writer.
  EXPECT_TRUE(zoo->Pin("a").ok());
}

TEST_F(ZooTest, RacingCreationsAllSucceed) {
  for (int round = 0; round < 60; ++round) {
    const std::string path = directory_.path(absl::StrCat("new", round));
    std::vector<pid_t> children;
    int gate[2];
    ASSERT_EQ(pipe(gate), 0);
    for (int i = 0; i < 4; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        close(gate[1]);
        char byte;
        (void)!read(gate[0], &byte, 1);  // all begin when the gate closes
        _exit(Zoo::Open({.directory = path, .mode = ZooMode::kCreate}).ok() ? 0 : 1);
      }
      children.push_back(child);
    }
    close(gate[0]);
    close(gate[1]);
    for (const pid_t child : children) {
      int status = 0;
      waitpid(child, &status, 0);
      EXPECT_EQ(status, 0) << "round " << round;
    }
  }
}

TEST_F(ZooTest, RacingImportsBothSucceed) {
  const std::string path = Gguf("a", {});
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      auto zoo = Zoo::Open({.directory = directory_.path("zoo"), .mode = ZooMode::kCreate});
      if (!zoo.ok()) _exit(1);
      _exit((*zoo)->Import({.path = path, .name = "m"}).ok() &&
                    (*zoo)->Import({.path = path, .name = absl::StrCat("m", i)}).ok()
                ? 0
                : 2);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  const auto zoo = OpenZoo();
  EXPECT_EQ(zoo->ChainNames()->size(), 5u);
  ExpectSound(*zoo);
  EXPECT_EQ(zoo->Gc({})->objects, 0u);
}

TEST_F(ZooTest, RefusesWhatIsNoZooOrNewer) {
  EXPECT_TRUE(absl::IsNotFound(Zoo::Open({.directory = directory_.path("absent")}).status()));
  WriteFile(directory_.path("file"), "x");
  EXPECT_TRUE(absl::IsFailedPrecondition(
      Zoo::Open({.directory = directory_.path(), .mode = ZooMode::kCreate}).status()));
  OpenZoo();
  const std::string settings = directory_.path("zoo/zoo.json");
  WriteFile(settings, "{\"format\":2}");
  const Status newer = Zoo::Open({.directory = directory_.path("zoo")}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(newer));
  EXPECT_NE(newer.message().find("newer"), absl::string_view::npos);
  WriteFile(settings, "garbage");
  EXPECT_TRUE(absl::IsDataLoss(Zoo::Open({.directory = directory_.path("zoo")}).status()));
}

TEST_F(ZooTest, ImportsStories260K) {
  const auto path = testing::TestDataPath("models/stories260K/stories260K.gguf");
  if (!path.has_value()) GTEST_SKIP() << "shared data is missing (set TESSERA_TEST_DATA)";
  const auto zoo = OpenZoo();
  const ImportReport report = Import(*zoo, *path, "stories");
  EXPECT_EQ(report.chain.end_token_ids, std::vector<uint32_t>{2});
  EXPECT_EQ(report.chain.assets.count("gguf_vocabulary.json"), 1u);
  const StatusOr<ChainDetails> details = zoo->Show("stories");
  ASSERT_TRUE(details.ok());
  EXPECT_NE(Render(*details).find("lm_head"), std::string::npos);
  ExpectSound(*zoo);
}

}  // namespace
}  // namespace tessera::blockzoo
