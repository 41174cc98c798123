#include "server/http/openai_embeddings.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

using Format = EmbeddingsRequest::Format;
using Fields = std::vector<std::string>;

StatusOr<EmbeddingsRequest> ParseInput(const std::string& more) {
  return ParseEmbeddingsRequest(absl::StrCat(R"({"model":"m",)", more, "}"), SpecLimits());
}

Fields FaultsOf(const StatusOr<EmbeddingsRequest>& request) {
  Fields fields;
  if (request.ok()) return fields;
  EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
  const ErrorReport report = ReportOf(request.status());
  for (const FieldViolation& one : report.details.violations) fields.push_back(one.field);
  return fields;
}

TEST(OpenAiEmbeddings, DefaultsAreTheLastTokenAndLengthOne) {
  const StatusOr<EmbeddingsRequest> request = ParseInput(R"("input":"hi")");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->format, Format::kFloat);
  ASSERT_EQ(request->specs.size(), 1u);
  const GenerationSpec& spec = request->specs[0];
  EXPECT_EQ(spec.model, "m");
  EXPECT_EQ(spec.prompt.text, "hi");
  ASSERT_TRUE(spec.embedding.has_value());
  EXPECT_EQ(spec.embedding->pooling, scheduler::Pooling::kLast);
  EXPECT_EQ(spec.embedding->length, EmbeddingSpec::Length::kOne);
  EXPECT_FALSE(spec.embedding->dimensions.has_value());
}

TEST(OpenAiEmbeddings, TakesEveryFieldAndFormOfInput) {
  const StatusOr<EmbeddingsRequest> request = ParseInput(
      R"("input":[[1,2],"x"],"encoding_format":"base64","dimensions":7,"pooling":"mean",
         "normalize":false,"user":"u","add_special_tokens":false,"truncate_prompt_tokens":9)");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->format, Format::kBase64);
  ASSERT_EQ(request->specs.size(), 2u);
  EXPECT_EQ(request->specs[0].prompt.token_ids, (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(request->specs[1].prompt.text, "x");
  EXPECT_EQ(request->specs[1].prompt.truncate_to, 9u);
  EXPECT_EQ(request->specs[1].prompt.add_special_tokens, false);
  EXPECT_EQ(request->specs[1].embedding->dimensions, 7u);
  EXPECT_EQ(request->specs[1].embedding->pooling, scheduler::Pooling::kMean);
  EXPECT_EQ(request->specs[1].embedding->length, EmbeddingSpec::Length::kAsIs);
  EXPECT_EQ(ParseInput(R"("input":[1,2],"pooling":"cls")")->specs[0].embedding->pooling,
            scheduler::Pooling::kFirst);
}

TEST(OpenAiEmbeddings, EveryFaultIsNamed) {
  EXPECT_EQ(FaultsOf(ParseInput(R"("pooling":"max","encoding_format":"int8","dimensions":-1)")),
            (Fields{"pooling", "dimensions", "encoding_format", "input"}));
  EXPECT_EQ(FaultsOf(ParseInput(R"("input":"x","dimensions":0)")), Fields{"dimensions"});
  EXPECT_EQ(FaultsOf(ParseInput(R"("input":[])")), Fields{"input"});
  EXPECT_EQ(FaultsOf(ParseInput(R"("input":["x",7])")), Fields{"input[1]"});
  EXPECT_EQ(FaultsOf(ParseEmbeddingsRequest(R"({"input":"x"})", SpecLimits())), Fields{"model"});
  EXPECT_FALSE(ParseEmbeddingsRequest("{", SpecLimits()).ok());
}

}  // namespace
}  // namespace tessera::server
