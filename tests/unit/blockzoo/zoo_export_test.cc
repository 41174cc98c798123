// Exports give back the imported files, byte for byte.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "blockzoo/export/source_record.h"
#include "blockzoo/zoo.h"
#include "tests/support/quantized_checkpoint.h"

namespace tessera::blockzoo {
namespace {

using testing::GgufWriter;
using testing::SafetensorsWriter;
using testing::TempDirectory;
using testing::TinyCheckpoint;
using testing::TinyGguf;
using testing::WriteFile;
using testing::WriteTinyHuggingFace;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::map<std::string, std::string> Files(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    files[entry.path().filename()] = ReadAll(entry.path());
  }
  return files;
}

class ZooExportTest : public ::testing::Test {
 protected:
  ZooExportTest() {
    zoo_ = *Zoo::Open({.directory = directory_.path("zoo"), .mode = ZooMode::kCreate});
  }

  void Import(const std::string& path, const std::string& name) {
    const auto report = zoo_->Import({.path = path, .name = name});
    ASSERT_TRUE(report.ok()) << report.status();
  }
  // Of `in`, a path below the test's directory, over a chain to the path `out`.
  void ExpectRoundTrip(const std::string& in, ExportFormat format) {
    Import(directory_.path(in), "chain");
    const std::string out = directory_.path("out");
    const auto report = zoo_->Export({.chain = "chain", .format = format, .path = out});
    ASSERT_TRUE(report.ok()) << report.status();
    if (std::filesystem::is_directory(out)) {
      const std::string from =
          std::filesystem::is_directory(directory_.path(in))
              ? directory_.path(in)
              : std::filesystem::path(directory_.path(in)).parent_path().string();
      EXPECT_TRUE(Files(out) == Files(from));
      EXPECT_EQ(report->files.size(), Files(from).size());
    } else {
      EXPECT_TRUE(ReadAll(out) == ReadAll(directory_.path(in)));
    }
    // Nothing lies about beside it.
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      EXPECT_FALSE(absl::StartsWith(entry.path().filename().string(), "."));
    }
  }
  Status ExportTo(const std::string& name, ExistingFiles existing = ExistingFiles::kKeep) {
    return zoo_->Export({.chain = "chain", .path = directory_.path(name), .existing = existing})
        .status();
  }

  const TempDirectory directory_;
  std::unique_ptr<Zoo> zoo_;
};

TEST_F(ZooExportTest, GgufOfEachType) {
  for (const uint32_t type : {0u, 1u, 2u, 3u, 8u, 30u}) {
    WriteFile(directory_.path("in.gguf"), TinyGguf({.layers = 2, .matrix_type = type}).Build());
    ExpectRoundTrip("in.gguf", ExportFormat::kGguf);
    ASSERT_TRUE(zoo_->Remove("chain").ok());
    std::filesystem::remove(directory_.path("out"));
  }
}

// Settings in the first part, the tensors dealt out to two others.
class ZooExportSplitTest : public ZooExportTest {
 protected:
  ZooExportSplitTest() {
    std::filesystem::create_directories(directory_.path("parts"));
    const TinyCheckpoint tiny{.layers = 2};
    parts_[0]
        .Text("general.architecture", "llama")
        .U32("llama.block_count", 2)
        .U32("llama.context_length", 256)
        .U32("llama.embedding_length", tiny.width)
        .U32("llama.feed_forward_length", tiny.hidden)
        .U32("llama.attention.head_count", tiny.q_heads)
        .U32("llama.attention.head_count_kv", tiny.kv_heads)
        .F32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    testing::ForEachTinyTensor(tiny, [&](const std::string& name, const std::string&,
                                         const std::vector<uint64_t>& shape, uint32_t seed) {
      uint64_t bytes = 4;
      for (const uint64_t dimension : shape) bytes *= dimension;
      parts_[1 + tensors_++ % 2].Tensor(name, 0, shape, testing::TinyBytes(bytes, 0, seed));
    });
    WriteAll();
  }

  std::string Path(int part) const {
    return directory_.path(absl::StrFormat("parts/m-%05d-of-00003.gguf", part + 1));
  }
  void Write(int part, uint16_t number, uint16_t count) const {
    GgufWriter writer = parts_[part];
    writer.Raw("split.no", GgufWriter::kU16, GgufWriter::Scalar(number))
        .Raw("split.count", GgufWriter::kU16, GgufWriter::Scalar(count))
        .Raw("split.tensors.count", GgufWriter::kI32, GgufWriter::Scalar(tensors_));
    WriteFile(Path(part), writer.Build());
  }
  void WriteAll() const {
    for (int part = 0; part < 3; ++part) Write(part, static_cast<uint16_t>(part), 3);
  }
  void ExpectRefused(const std::string& path, const char* text) {
    const Status status = zoo_->Import({.path = path, .name = "other"}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), text)) << status;
  }

  GgufWriter parts_[3];
  int32_t tensors_ = 0;
};

TEST_F(ZooExportSplitTest, AnyPartGivesAllBack) {
  ExpectRoundTrip("parts/m-00002-of-00003.gguf", ExportFormat::kGguf);
}

TEST_F(ZooExportSplitTest, PartsMustGoTogether) {
  Write(2, 1, 3);
  ExpectRefused(Path(0), "split.no");
  Write(2, 2, 4);
  ExpectRefused(Path(0), "split.count");
  std::filesystem::remove(Path(2));
  ExpectRefused(Path(0), "m-00003-of-00003.gguf");
  std::filesystem::copy_file(Path(1), Path(2));
  ExpectRefused(Path(0), "split.no");
  ++tensors_;
  WriteAll();
  ExpectRefused(Path(0), "split.tensors.count");
  // The one that is missing is there twice.
  for (const int part : {1, 2}) {
    parts_[part].Tensor("more.weight", 0, {64}, std::string(256, '\0'));
  }
  WriteAll();
  ExpectRefused(Path(0), "earlier part");
  std::filesystem::rename(Path(0), directory_.path("parts/renamed.gguf"));
  ExpectRefused(directory_.path("parts/renamed.gguf"), "-00001-of-00003.gguf");
}

TEST_F(ZooExportTest, HuggingFaceWithItsCompanions) {
  WriteTinyHuggingFace({.layers = 2}, directory_.path("in"), ",\"tie_word_embeddings\":true");
  WriteFile(directory_.path("in/generation_config.json"), "{\"eos_token_id\": 2}\n");
  WriteFile(directory_.path("in/special_tokens_map.json"), "{}");
  WriteFile(directory_.path("in/LICENSE"), "Apache");
  WriteFile(directory_.path("in/chat_template.jinja"), "{{ messages }}");
  ExpectRoundTrip("in", ExportFormat::kHuggingFace);
}

TEST_F(ZooExportTest, ShardedHuggingFace) {
  WriteTinyHuggingFace({.layers = 2}, directory_.path("in"));
  const std::string in = directory_.path("in/");
  SafetensorsWriter shards[2];
  std::string map;
  size_t count = 0;
  testing::ForEachTinyTensor({.layers = 2}, [&](const std::string&, const std::string& name,
                                                const std::vector<uint64_t>& shape, uint32_t seed) {
    uint64_t bytes = 4;
    for (const uint64_t dimension : shape) bytes *= dimension;
    absl::StrAppend(&map, map.empty() ? "" : ",", "\"", name, "\":\"s", count % 2,
                    ".safetensors\"");
    shards[count++ % 2].Tensor(name, "F32", shape, testing::TinyBytes(bytes, 0, seed));
  });
  std::filesystem::remove(in + "model.safetensors");
  for (int i = 0; i < 2; ++i) {
    WriteFile(absl::StrCat(in, "s", i, ".safetensors"), shards[i].Build());
  }
  WriteFile(in + "model.safetensors.index.json", absl::StrCat("{\"weight_map\":{", map, "}}"));
  ExpectRoundTrip("in", ExportFormat::kHuggingFace);
}

class ZooExportQuantizedTest : public ZooExportTest,
                               public ::testing::WithParamInterface<testing::QuantizedLayout> {};

TEST_P(ZooExportQuantizedTest, RoundTrip) {
  testing::WriteTinyQuantized(GetParam(), directory_.path("in"));
  ExpectRoundTrip("in", ExportFormat::kHuggingFace);
  // The codes are stored once: in the tensors, not among the record's literal bytes.
  const ChainManifest chain = *zoo_->Chain("chain");
  const auto record = ParseSourceRecord(*zoo_->Asset(chain.source.at(kSourceRecordName)));
  ASSERT_TRUE(record.ok()) << record.status();
  uint64_t shared = 0;
  for (const SourceSegment& segment : record->files.at("model.safetensors")) {
    shared += segment.bytes;
  }
  const uint64_t literal = zoo_->Asset(chain.source.at("model.safetensors"))->size();
  EXPECT_EQ(shared + literal, std::filesystem::file_size(directory_.path("in/model.safetensors")));
  EXPECT_LT(literal, shared / 4);
}

INSTANTIATE_TEST_SUITE_P(Layouts, ZooExportQuantizedTest,
                         ::testing::ValuesIn(testing::QuantizedLayouts()), [](const auto& info) {
                           return absl::StrReplaceAll(info.param.name, {{"-", "_"}});
                         });

TEST_F(ZooExportTest, NeverWritesOverWhatIsThere) {
  WriteFile(directory_.path("in.gguf"), TinyGguf({.layers = 1}).Build());
  Import(directory_.path("in.gguf"), "chain");
  WriteFile(directory_.path("taken"), "mine");
  EXPECT_TRUE(absl::IsAlreadyExists(ExportTo("taken")));
  EXPECT_EQ(ReadAll(directory_.path("taken")), "mine");
  EXPECT_TRUE(ExportTo("taken", ExistingFiles::kReplace).ok());
  EXPECT_TRUE(ReadAll(directory_.path("taken")) == ReadAll(directory_.path("in.gguf")));
  EXPECT_TRUE(absl::IsNotFound(ExportTo("nowhere/out.gguf")));
}

TEST_F(ZooExportTest, ForceReplacesDirectoriesOfModelsOnly) {
  WriteTinyHuggingFace({.layers = 1}, directory_.path("in"));
  Import(directory_.path("in"), "chain");
  const auto export_to = [this](const std::string& name) {
    return zoo_
        ->Export({.chain = "chain",
                  .format = ExportFormat::kHuggingFace,
                  .path = directory_.path(name),
                  .existing = ExistingFiles::kReplace})
        .status();
  };
  std::filesystem::create_directories(directory_.path("home/letters"));
  EXPECT_TRUE(absl::IsAlreadyExists(export_to("home")));
  EXPECT_TRUE(std::filesystem::exists(directory_.path("home/letters")));
  WriteTinyHuggingFace({.layers = 2}, directory_.path("old"));
  EXPECT_TRUE(export_to("old").ok());
  EXPECT_TRUE(Files(directory_.path("old")) == Files(directory_.path("in")));
}

TEST_F(ZooExportTest, SaysWhyItCannot) {
  WriteFile(directory_.path("in.gguf"), TinyGguf({.layers = 1}).Build());
  Import(directory_.path("in.gguf"), "chain");
  const Status format = zoo_->Export({.chain = "chain",
                                      .format = ExportFormat::kHuggingFace,
                                      .path = directory_.path("out")})
                            .status();
  EXPECT_TRUE(absl::IsUnimplemented(format)) << format;
  EXPECT_TRUE(absl::StrContains(format.message(), "--format gguf")) << format;
  ASSERT_TRUE(zoo_->Compose({.name = "composed", .pieces = {{.chain = "chain"}}}).ok());
  ASSERT_TRUE(zoo_->Quantize({.source = "chain", .name = "small"}).ok());
  for (const char* made : {"composed", "small"}) {
    const Status status = zoo_->Export({.chain = made, .path = directory_.path("out")}).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), "made in this zoo")) << status;
  }
  EXPECT_FALSE(std::filesystem::exists(directory_.path("out")));
}

TEST_F(ZooExportTest, AnOlderChainGetsItsRecordByImportingAgain) {
  WriteFile(directory_.path("in.gguf"), TinyGguf({.layers = 1}).Build());
  Import(directory_.path("in.gguf"), "chain");
  ChainManifest chain = *zoo_->Chain("chain");
  const Digest revision = RevisionOf(chain);
  chain.source.clear();
  EXPECT_EQ(RevisionOf(chain), revision);
  WriteFile(directory_.path("zoo/chains/chain.json"), CanonicalText(chain));
  const Status old = ExportTo("out");
  EXPECT_TRUE(absl::StrContains(old.message(), "import the same files")) << old;
  Import(directory_.path("in.gguf"), "chain");
  EXPECT_TRUE(ExportTo("out").ok());
}

TEST_F(ZooExportTest, GcKeepsTheRecordWithItsChain) {
  WriteFile(directory_.path("in.gguf"), TinyGguf({.layers = 1}).Build());
  Import(directory_.path("in.gguf"), "chain");
  EXPECT_EQ(zoo_->Gc({})->objects, 0u);
  EXPECT_TRUE(ExportTo("out").ok());
  ASSERT_TRUE(zoo_->Remove("chain").ok());
  ASSERT_TRUE(zoo_->Gc({}).ok());
  EXPECT_EQ(zoo_->Gc({})->kept_objects, 0u);
}

TEST_F(ZooExportTest, DamageIsNoticed) {
  WriteFile(directory_.path("in.gguf"), TinyGguf({.layers = 1}).Build());
  Import(directory_.path("in.gguf"), "chain");
  const BlockManifest block = *zoo_->Block(zoo_->Chain("chain")->blocks[1]);
  const std::string hex = block.Find("q")->tensor.Hex();
  const std::string path =
      directory_.path(absl::StrCat("zoo/objects/tensors/", hex.substr(0, 2), "/", hex));
  std::string bytes = ReadAll(path);
  bytes[5] ^= 1;
  WriteFile(path, bytes);
  const Status status = ExportTo("out");
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_FALSE(std::filesystem::exists(directory_.path("out")));
}

TEST(SourceRecordTest, RefusesWhatLeavesItsPlace) {
  const auto record = [](const std::string& name, const std::string& segment) {
    return ParseSourceRecord(absl::StrCat("{\"version\":1,\"format\":\"gguf\",\"files\":{\"", name,
                                          "\":[", segment, "]}}"))
        .status();
  };
  const auto segment = [](int offset, int bytes, const char* more = "") {
    return absl::StrCat("{\"literal\":0,\"tensor\":\"", std::string(64, 'a'),
                        "\",\"dtype\":\"F32\",\"shape\":[4],\"offset\":", offset,
                        ",\"bytes\":", bytes, more, "}");
  };
  EXPECT_TRUE(record("a.gguf", segment(0, 16)).ok());
  EXPECT_FALSE(record("a.gguf", segment(0, 17)).ok());
  EXPECT_FALSE(record("a.gguf", segment(8, 9)).ok());
  EXPECT_FALSE(record("a.gguf", segment(-1, 4)).ok());
  EXPECT_FALSE(record("a.gguf", segment(0, 16, ",\"arrangement\":\"awq\"")).ok());
  EXPECT_FALSE(record("../a.gguf", segment(0, 16)).ok());
  EXPECT_FALSE(record("/etc/passwd", segment(0, 16)).ok());
  EXPECT_FALSE(record("a.gguf", "7").ok());
  EXPECT_FALSE(ParseSourceRecord("{\"version\":2,\"format\":\"gguf\",\"files\":{}}").ok());
  EXPECT_FALSE(ParseSourceRecord("[]").ok());
}

}  // namespace
}  // namespace tessera::blockzoo
