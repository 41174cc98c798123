#include "server/http/request_parser.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

using State = RequestParser::State;

// Feeds `bytes` in pieces of `piece` as a connection would.
State FeedAll(RequestParser& parser, const std::string& bytes, size_t piece,
              std::string* left = nullptr) {
  std::string buffer;
  State state = State::kNeedMore;
  for (size_t at = 0; at < bytes.size() && state == State::kNeedMore; at += piece) {
    buffer += bytes.substr(at, piece);
    size_t consumed = 0;
    state = parser.Feed(buffer, &consumed);
    EXPECT_LE(consumed, buffer.size());
    buffer.erase(0, consumed);
  }
  if (left != nullptr) {
    *left = buffer;
  }
  return state;
}

TEST(RequestParser, ReadsARequestInPiecesOfAnySize) {
  const std::string bytes =
      "POST /v1/completions?x=1 HTTP/1.1\r\nHost: a\r\nX-Request-Id: r1\r\ncontent-length: "
      "5\r\n\r\nhello";
  for (const size_t piece : {1u, 2u, 7u, 64u, 1000u}) {
    RequestParser parser({});
    ASSERT_EQ(FeedAll(parser, bytes, piece), State::kComplete) << piece;
    const HttpRequest request = parser.Take();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path(), "/v1/completions");
    EXPECT_EQ(request.Header("x-request-id"), "r1");
    EXPECT_EQ(request.body, "hello");
    EXPECT_EQ(request.connection, HttpRequest::Connection::kKeepAlive);
    EXPECT_FALSE(parser.started());
  }
}

TEST(RequestParser, ReadsChunksAndLeavesTheNextRequest) {
  RequestParser parser({});
  const std::string next = "GET / HTTP/1.1\r\n";
  std::string left;
  ASSERT_EQ(FeedAll(parser,
                    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
                    "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n" +
                        next,
                    1000, &left),
            State::kComplete);
  EXPECT_EQ(parser.Take().body, "abcde");
  EXPECT_EQ(left, next);
}

TEST(RequestParser, ReadsTheLastChunkInPieces) {
  for (const size_t piece : {1u, 2u, 3u, 4u}) {
    RequestParser parser({});
    ASSERT_EQ(FeedAll(parser,
                      "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
                      "0\r\nt: v\r\n\r\n",
                      piece),
              State::kComplete)
        << piece;
    EXPECT_EQ(parser.Take().body, "");
  }
}

TEST(RequestParser, SaysContinueOnce) {
  RequestParser parser({});
  const std::string head =
      "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
  ASSERT_EQ(FeedAll(parser, head, 1000), State::kNeedMore);
  EXPECT_TRUE(parser.TakeContinue());
  EXPECT_FALSE(parser.TakeContinue());
}

struct Refusal {
  std::string name;
  std::string bytes;
  int status;
};

class RefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(RefusalTest, HasItsStatus) {
  HttpLimits limits;
  limits.max_body_bytes = 10;
  limits.max_headers = 3;
  limits.max_header_bytes = 300;
  limits.max_target_bytes = 20;
  for (const size_t piece : {1u, 4096u}) {
    RequestParser parser(limits);
    ASSERT_EQ(FeedAll(parser, GetParam().bytes, piece), State::kFailed);
    EXPECT_EQ(parser.failure().status, GetParam().status) << parser.failure().message;
    EXPECT_FALSE(parser.failure().message.empty());
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusalTest,
    testing::Values(
        Refusal{"garbage", "\x16\x03\x01 what is this\r\n\r\n", 400},
        Refusal{"long_body", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n", 413},
        Refusal{"huge_length",
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551615\r\n\r\n", 413},
        Refusal{"long_chunked",
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
                "6\r\nabcdef\r\n6\r\nabcdef\r\n",
                413},
        Refusal{"negative_chunk",
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", 400},
        Refusal{"both_lengths",
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n"
                "transfer-encoding: chunked\r\n\r\n",
                400},
        Refusal{"other_encoding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
                400},
        Refusal{"many_headers", "GET / HTTP/1.1\r\nhost: a\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n", 431},
        Refusal{"long_headers",
                absl::StrCat("GET / HTTP/1.1\r\nhost: ", std::string(400, 'a'), "\r\n\r\n"), 431},
        Refusal{"long_target",
                absl::StrCat("GET /", std::string(30, 'a'), " HTTP/1.1\r\nhost: a\r\n\r\n"), 414},
        Refusal{"no_host", "GET / HTTP/1.1\r\n\r\n", 400},
        Refusal{"two_hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400},
        Refusal{"endless_chunk_line",
                absl::StrCat("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;",
                             std::string(5000, 'x')),
                431}),
    [](const testing::TestParamInfo<Refusal>& info) { return info.param.name; });

}  // namespace
}  // namespace tessera::server
