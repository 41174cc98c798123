// Published vectors: real vocabularies must give exactly the published ids.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "blockzoo/import/gguf_metadata.h"
#include "blockzoo/import/gguf_reader.h"
#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"
#include "tests/support/sanitized.h"
#include "tests/support/test_data.h"

namespace tessera::server {
namespace {

using ::tessera::testing::ReadWholeFile;
using ::tessera::testing::TestDataPath;

using TokenizerPtr = std::shared_ptr<const Tokenizer>;

TokenizerPtr FromGguf(const std::string& path) {
  const std::string file = ReadWholeFile(path);
  const auto gguf =
      blockzoo::ParseGguf(std::as_bytes(std::span<const char>(file.data(), file.size())));
  if (!gguf.ok()) {
    ADD_FAILURE() << gguf.status();
    return nullptr;
  }
  const auto json = blockzoo::GgufVocabularyJson(*gguf);
  if (!json.ok()) {
    ADD_FAILURE() << json.status();
    return nullptr;
  }
  auto tokenizer = TokenizerFromAssets({{"gguf_vocabulary.json", *json}});
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

std::string Gunzip(const std::string& path) {
  std::string text;
  std::FILE* pipe = popen(("gzip -dc '" + path + "'").c_str(), "r");
  if (pipe == nullptr) return text;
  char buffer[65536];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) text.append(buffer, n);
  pclose(pipe);
  return text;
}

TokenizerPtr Qwen() {
  const auto path = TestDataPath("tokenizers/qwen3/tokenizer.json.gz");
  if (!path.has_value()) return nullptr;
  auto tokenizer = TokenizerFromAssets({{"tokenizer.json", Gunzip(*path)}});
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

TokenizerPtr Llama2() {
  const auto path = TestDataPath("tokenizers/llama2/tokenizer.model");
  if (!path.has_value()) return nullptr;
  auto tokenizer = TokenizerFromAssets({{"tokenizer.model", ReadWholeFile(*path)}});
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

struct Case {
  std::string text;
  std::vector<TokenId> ids;
};

std::vector<Case> ReadCases(const std::string& base) {
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts = absl::StrSplit(ReadWholeFile(base + ".inp"), separator);
  std::vector<std::string> lines = absl::StrSplit(ReadWholeFile(base + ".out"), '\n');
  // Both files end with a separator.
  if (!texts.empty() && texts.back().empty()) texts.pop_back();
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  EXPECT_EQ(texts.size(), lines.size());
  std::vector<Case> cases;
  for (size_t i = 0; i < std::min(texts.size(), lines.size()); ++i) {
    Case one{texts[i], {}};
    for (const auto number : absl::StrSplit(lines[i], ' ', absl::SkipEmpty())) {
      uint32_t id = 0;
      EXPECT_TRUE(absl::SimpleAtoi(number, &id));
      one.ids.push_back(id);
    }
    cases.push_back(std::move(one));
  }
  return cases;
}

void ExpectVectors(const Tokenizer& tokenizer, const std::string& base) {
  const std::vector<Case> cases = ReadCases(base);
  ASSERT_GE(cases.size(), 40u);
  const EncodeOptions options{AddSpecial::kNone, ParseSpecial::kOff};
  for (const Case& one : cases) {
    const auto ids = tokenizer.Encode(one.text, options);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, one.ids) << "text: \"" << one.text << "\"";
    const auto encoding = tokenizer.EncodeWithRanges(one.text, options);
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    EXPECT_EQ(encoding->ids, one.ids);
    ASSERT_EQ(encoding->ranges.size(), one.ids.size());
    for (const ByteRange range : encoding->ranges) {
      EXPECT_LE(range.begin, range.end);
      EXPECT_LE(range.end, one.text.size());
    }
  }
}

class GgufVectors : public ::testing::TestWithParam<const char*> {};

TEST_P(GgufVectors, AllEqual) {
  const std::string name = std::string("tokenizers/ggml-vocab-") + GetParam() + ".gguf";
  const auto path = TestDataPath(name);
  if (!path.has_value()) GTEST_SKIP() << "shared data has no " << name;
  const TokenizerPtr tokenizer = FromGguf(*path);
  ASSERT_NE(tokenizer, nullptr);
  ExpectVectors(*tokenizer, *path);
}

INSTANTIATE_TEST_SUITE_P(All, GgufVectors,
                         ::testing::Values("llama-spm", "gpt-2", "falcon", "deepseek-llm",
                                           "bert-bge"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

TEST(TokenizerVectors, Qwen3TokenizerJson) {
  const TokenizerPtr tokenizer = Qwen();
  if (tokenizer == nullptr) GTEST_SKIP() << "shared data has no tokenizers/qwen3";
  ExpectVectors(*tokenizer, *TestDataPath("tokenizers/qwen3") + "/qwen2");
}

TEST(TokenizerVectors, Llama2SentencePiece) {
  const TokenizerPtr tokenizer = Llama2();
  if (tokenizer == nullptr) GTEST_SKIP() << "shared data has no tokenizers/llama2";
  ExpectVectors(*tokenizer, *TestDataPath("tokenizers") + "/ggml-vocab-llama-spm.gguf");
}

// What the library says of each line: the program sentencepiece_ids beside this one runs it.
std::vector<std::string> SentencePieceIds(const std::string& model,
                                          const std::vector<std::string>& lines) {
  const std::string input = ::testing::TempDir() + "/sentencepiece_ids.txt";
  std::ofstream(input) << absl::StrJoin(lines, "\n") << "\n";
  const auto program =
      std::filesystem::read_symlink("/proc/self/exe").replace_filename("sentencepiece_ids");
  FILE* pipe = popen(absl::StrCat(program.string(), " '", model, "' < '", input, "'").c_str(), "r");
  std::string output;
  std::array<char, 4096> buffer;
  while (const size_t count = fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.append(buffer.data(), count);
  }
  EXPECT_EQ(pclose(pipe), 0) << program;
  std::filesystem::remove(input);
  return absl::StrSplit(absl::StripSuffix(output, "\n"), '\n');
}

TEST(TokenizerVectors, SentencePieceLibraryAgreesOnRealText) {
  const TokenizerPtr tokenizer = Llama2();
  const auto text_path = TestDataPath("texts/wiki.test.raw");
  if (tokenizer == nullptr || !text_path.has_value()) GTEST_SKIP() << "shared data is missing";
  std::vector<std::string> lines;
  for (const auto line : absl::StrSplit(ReadWholeFile(*text_path), '\n')) {
    if (!line.empty() && lines.size() < 400) lines.emplace_back(line);
  }
  const std::vector<std::string> expected =
      SentencePieceIds(*TestDataPath("tokenizers/llama2/tokenizer.model"), lines);
  ASSERT_EQ(expected.size(), lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    const auto ids = tokenizer->Encode(lines[i], {AddSpecial::kNone, ParseSpecial::kOff});
    ASSERT_TRUE(ids.ok()) << ids.status();
    ASSERT_EQ(absl::StrCat(absl::StrJoin(*ids, " "), " "), expected[i]) << lines[i];
  }
}

// Text comes back as it was, whatever the vocabulary normalizes.
TEST(TokenizerVectors, RealTextRoundTripsAndRangesCoverIt) {
  const auto text_path = TestDataPath("texts/wiki.test.raw");
  const auto gpt2 = TestDataPath("tokenizers/ggml-vocab-gpt-2.gguf");
  if (!text_path.has_value() || !gpt2.has_value()) GTEST_SKIP() << "shared data is missing";
  const TokenizerPtr tokenizer = FromGguf(*gpt2);
  ASSERT_NE(tokenizer, nullptr);
  const std::string text = ReadWholeFile(*text_path).substr(0, 200000);
  const auto encoding = tokenizer->EncodeWithRanges(text, {AddSpecial::kNone, ParseSpecial::kOff});
  ASSERT_TRUE(encoding.ok()) << encoding.status();
  EXPECT_EQ(DecodeBytes(tokenizer->token_bytes(), encoding->ids, {}), text);
  uint32_t end = 0;
  for (const ByteRange range : encoding->ranges) {
    ASSERT_EQ(range.begin, end);
    end = range.end;
  }
  EXPECT_EQ(end, text.size());
}

// Merging takes n log n steps and splitting linear ones: a quadratic loop would not come back
// within the test's time.
class LongTexts : public ::testing::TestWithParam<const char*> {};

TEST_P(LongTexts, RoundTrip) {
  const std::string name = std::string("tokenizers/ggml-vocab-") + GetParam() + ".gguf";
  const auto path = TestDataPath(name);
  if (!path.has_value()) GTEST_SKIP() << "shared data has no " << name;
  const TokenizerPtr tokenizer = FromGguf(*path);
  ASSERT_NE(tokenizer, nullptr);
  constexpr size_t kBytes = testing::kSanitized ? 100'000 : 1'000'000;
  std::string word;
  for (size_t i = 0; i < kBytes; ++i) word.push_back(static_cast<char>('a' + (i * i / 7) % 26));
  for (const std::string& text : {std::string(kBytes, ' '), std::string(kBytes, 'a'), word,
                                  std::string(kBytes, '\n'), std::string(kBytes, '7')}) {
    const auto ids = tokenizer->Encode(text, {AddSpecial::kNone, ParseSpecial::kOff});
    ASSERT_TRUE(ids.ok()) << ids.status();
    const DecodeOptions alone{.leading_space = LeadingSpace::kStrip};
    EXPECT_TRUE(DecodeBytes(tokenizer->token_bytes(), *ids, alone) == text) << text.substr(0, 20);
  }
}

INSTANTIATE_TEST_SUITE_P(All, LongTexts,
                         ::testing::Values("llama-spm", "gpt-2", "falcon", "deepseek-llm"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace tessera::server
