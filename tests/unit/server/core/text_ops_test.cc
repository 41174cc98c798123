#include "server/core/text_ops.h"

#include <gtest/gtest.h>

#include "tests/unit/server/core/core_fixture.h"

namespace tessera::server {
namespace {

using testing::ByteIds;
using testing::kEndToken;
using testing::MakeByteModel;

PromptSpec TextPrompt(std::string text) {
  return {.input = PromptSpec::Input::kText, .text = std::move(text)};
}
PromptSpec IdsPrompt(std::vector<TokenId> ids) {
  return {.input = PromptSpec::Input::kTokenIds, .token_ids = std::move(ids)};
}

class EncodePairTest : public ::testing::Test {
 protected:
  EncodedPair Encode(const PromptSpec& context, const PromptSpec& continuation) {
    const StatusOr<EncodedPair> pair = EncodePair(*model_, context, continuation);
    EXPECT_TRUE(pair.ok()) << pair.status();
    return pair.ok() ? *pair : EncodedPair();
  }
  void Expect(const EncodedPair& pair, const std::string& text, uint32_t from) {
    EXPECT_EQ(pair.ids, ByteIds(text));
    EXPECT_EQ(pair.continuation_from, from);
  }
  std::string FieldOf(const PromptSpec& context, const PromptSpec& continuation) {
    const Status status = EncodePair(*model_, context, continuation).status();
    const ErrorReport report = ReportOf(status);
    return report.details.violations.empty() ? "" : report.details.violations.front().field;
  }

  std::unique_ptr<LoadedModel> model_ = MakeByteModel();
};

TEST_F(EncodePairTest, SpaceAtTheContextsEndIsTheContinuations) {
  Expect(Encode(TextPrompt("ab"), TextPrompt(" cd")), "ab cd", 2);
  Expect(Encode(TextPrompt("ab \n"), TextPrompt("cd")), "ab \ncd", 2);
  Expect(Encode(TextPrompt("ab\u00a0\u2003"), TextPrompt("c")), "ab\u00a0\u2003c", 2);
  Expect(Encode(TextPrompt("\u00e4\u200b"), TextPrompt("c")), "\u00e4\u200bc",
         5);  // of no width: no space
}

// The vocabulary joins the bytes 0 and 1.
TEST_F(EncodePairTest, MergesAcrossTheBorderAreTheContextsLoss) {
  const std::string zero(1, '\0');
  // "a\0" is two tokens, "a\0\1" is two as well: nothing is left, so each is encoded alone.
  const EncodedPair alone = Encode(TextPrompt("a" + zero), TextPrompt("\1"));
  EXPECT_EQ(alone.ids, (std::vector<TokenId>{'a', 0, 1}));
  EXPECT_EQ(alone.continuation_from, 2u);
  const EncodedPair joined = Encode(TextPrompt("a" + zero), TextPrompt("\1b"));
  EXPECT_EQ(joined.ids, (std::vector<TokenId>{'a', 258, 'b'}));
  EXPECT_EQ(joined.continuation_from, 2u);
}

TEST_F(EncodePairTest, IdsAreTakenAsTheyAre) {
  const EncodedPair pair = Encode(IdsPrompt({0}), IdsPrompt({1, 2}));
  EXPECT_EQ(pair.ids, (std::vector<TokenId>{0, 1, 2}));
  EXPECT_EQ(pair.continuation_from, 1u);
  const EncodedPair mixed = Encode(IdsPrompt({0, 'x'}), TextPrompt("\1"));
  EXPECT_EQ(mixed.ids, (std::vector<TokenId>{0, 'x', 1}));
  EXPECT_EQ(mixed.continuation_from, 2u);
}

TEST_F(EncodePairTest, AnEmptyContextIsWhatBeginsAText) {
  for (const char* context : {"", "  "}) {
    const EncodedPair pair = Encode(TextPrompt(context), TextPrompt("ab"));
    std::vector<TokenId> want = {kEndToken};
    for (const TokenId id : ByteIds(std::string(context) + "ab")) want.push_back(id);
    EXPECT_EQ(pair.ids, want);
    EXPECT_EQ(pair.continuation_from, 1u);
  }
}

TEST_F(EncodePairTest, TruncationCutsTheContextAlone) {
  PromptSpec context = TextPrompt("abcdef");
  context.truncate_to = 2;
  Expect(Encode(context, TextPrompt("gh")), "efgh", 2);
  context = IdsPrompt(ByteIds("abcdef"));
  context.truncate_to = 2;
  Expect(Encode(context, IdsPrompt(ByteIds("gh"))), "efgh", 2);
}

TEST_F(EncodePairTest, ErrorsNameThePart) {
  EXPECT_EQ(FieldOf(TextPrompt("a"), TextPrompt("")), "continuation");
  EXPECT_EQ(FieldOf(IdsPrompt({1000}), TextPrompt("b")), "prompt.token_ids[0]");
  EXPECT_EQ(FieldOf(TextPrompt("a"), IdsPrompt({1, 1000})), "continuation.token_ids[1]");
}

}  // namespace
}  // namespace tessera::server
