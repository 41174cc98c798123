#include "scheduler/stream_mailbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace tessera::scheduler {
namespace {

struct Calls {
  int ready = 0;
  int drained = 0;
};

StreamMailbox::Options OptionsOf(Calls* calls, uint32_t wake_above = 1024) {
  return {.on_ready = [calls] { ++calls->ready; },
          .on_drained = [calls] { ++calls->drained; },
          .wake_above = wake_above};
}

std::vector<TokenId> Ids(const MailboxBatch& batch) {
  std::vector<TokenId> ids;
  for (const TokenEvent& event : batch.tokens) ids.push_back(event.token);
  return ids;
}

TEST(StreamMailboxTest, OnlyThePushThatFindsItEmptyAsksForTheReader) {
  Calls calls;
  StreamMailbox mailbox(OptionsOf(&calls));
  EXPECT_TRUE(mailbox.PushStarted({.prompt_tokens = 3}));
  EXPECT_FALSE(mailbox.PushToken({.token = 7}, {}));
  EXPECT_FALSE(mailbox.PushToken({.token = 8}, {}));
  EXPECT_EQ(calls.ready, 0);
  mailbox.Tell();
  EXPECT_EQ(calls.ready, 1);
  EXPECT_EQ(mailbox.backlog_tokens(), 2u);
  MailboxBatch batch;
  ASSERT_TRUE(mailbox.Drain(batch));
  EXPECT_EQ(batch.started->prompt_tokens, 3u);
  EXPECT_EQ(Ids(batch), (std::vector<TokenId>{7, 8}));
  EXPECT_EQ(mailbox.backlog_tokens(), 0u);
  EXPECT_FALSE(mailbox.Drain(batch));
  EXPECT_TRUE(batch.empty());
  EXPECT_TRUE(mailbox.PushToken({.token = 9}, {}));
}

TEST(StreamMailboxTest, TokensKeepTheirOrderAndTheirAlternatives) {
  Calls calls;
  StreamMailbox mailbox(OptionsOf(&calls));
  MailboxBatch batch;
  TokenId next = 0;
  for (int count : {1, 2, 1, 5, 1}) {
    const TokenId first = next;
    for (int i = 0; i < count; ++i, ++next) {
      std::vector<kernels::TokenLogprob> top(static_cast<size_t>(next % 3));
      for (kernels::TokenLogprob& each : top) each.id = next;
      (void)mailbox.PushToken({.token = next}, top);
    }
    ASSERT_TRUE(mailbox.Drain(batch));
    ASSERT_EQ(batch.tokens.size(), static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
      const TokenEvent& event = batch.tokens[static_cast<size_t>(i)];
      EXPECT_EQ(event.token, first + static_cast<TokenId>(i));
      ASSERT_EQ(event.top_count, event.token % 3);
      for (uint32_t t = 0; t < event.top_count; ++t) {
        EXPECT_EQ(batch.top[event.top_begin + t].id, event.token);
      }
    }
  }
}

TEST(StreamMailboxTest, NothingFollowsTheEndOrAClose) {
  Calls calls;
  StreamMailbox ended(OptionsOf(&calls));
  EXPECT_TRUE(ended.PushToken({.token = 1}, {}));
  EXPECT_FALSE(ended.PushFinished({.last = true}));
  EXPECT_FALSE(ended.PushToken({.token = 2}, {}));
  EXPECT_FALSE(ended.PushError(absl::InternalError("late")));
  MailboxBatch batch;
  ASSERT_TRUE(ended.Drain(batch));
  EXPECT_EQ(Ids(batch), std::vector<TokenId>{1});
  EXPECT_EQ(batch.finished.size(), 1u);
  EXPECT_FALSE(batch.error.has_value());

  StreamMailbox closed(OptionsOf(&calls));
  EXPECT_TRUE(closed.PushToken({.token = 1}, {}));
  closed.Close();
  EXPECT_EQ(closed.backlog_tokens(), 0u);
  EXPECT_FALSE(closed.PushToken({.token = 2}, {}));
  closed.Tell();
  EXPECT_EQ(calls.ready, 0);
  EXPECT_FALSE(closed.Drain(batch));
  EXPECT_TRUE(batch.empty());
}

TEST(StreamMailboxTest, TheEngineIsWokenOnlyAfterALongBacklog) {
  Calls calls;
  StreamMailbox mailbox(OptionsOf(&calls, 2));
  MailboxBatch batch;
  for (int tokens = 1; tokens <= 3; ++tokens) {
    for (int i = 0; i < tokens; ++i) (void)mailbox.PushToken({.token = 1}, {});
    ASSERT_TRUE(mailbox.Drain(batch));
    EXPECT_EQ(calls.drained, tokens > 2 ? 1 : 0) << tokens;
  }
}

TEST(StreamMailboxTest, AReaderBesideTheEngineLosesNothing) {
  constexpr TokenId kTokens = 20000;
  std::atomic<int> told = 0;
  StreamMailbox mailbox({.on_ready = [&] { told.fetch_add(1); }});
  std::vector<TokenId> seen;
  std::thread reader([&] {
    MailboxBatch batch;
    for (bool ended = false; !ended;) {
      if (!mailbox.Drain(batch)) {
        std::this_thread::yield();
        continue;
      }
      for (const TokenEvent& event : batch.tokens) seen.push_back(event.token);
      ended = !batch.finished.empty();
    }
  });
  int asked = 0;
  for (TokenId token = 0; token < kTokens; ++token) {
    mailbox.Prefetch();
    if (mailbox.PushToken({.token = token}, {})) {
      ++asked;
      mailbox.Tell();
    }
  }
  if (mailbox.PushFinished({.last = true})) {
    ++asked;
    mailbox.Tell();
  }
  reader.join();
  EXPECT_EQ(told.load(), asked);
  ASSERT_EQ(seen.size(), size_t{kTokens});
  for (TokenId token = 0; token < kTokens; ++token) ASSERT_EQ(seen[token], token);
}

}  // namespace
}  // namespace tessera::scheduler
