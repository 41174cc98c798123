#include "server/http/http_message.h"

#include <gtest/gtest.h>

namespace tessera::server {
namespace {

TEST(HttpMessage, EventsEndWithBareLineFeeds) {
  EXPECT_EQ(SseEvent("{\"a\":1}"), "data: {\"a\":1}\n\n");
  EXPECT_EQ(SseEvent("[DONE]"), "data: [DONE]\n\n");
  EXPECT_EQ(SseComment("keep-alive"), ": keep-alive\n\n");
}

TEST(HttpMessage, ChunksCarryTheirSizeInHexadecimal) {
  EXPECT_EQ(EncodeChunk("0123456789abcdef!"), "11\r\n0123456789abcdef!\r\n");
  EXPECT_EQ(EncodeChunk(""), "") << "an empty chunk would end the body";
}

TEST(HttpMessage, HeadNamesItsFraming) {
  HttpResponse response;
  response.status = 503;
  response.body = "busy";
  response.headers = {{"retry-after", "2"}};
  const std::string length =
      SerializeHead(response, BodyFraming::kLength, HttpRequest::Connection::kKeepAlive);
  EXPECT_EQ(length.rfind("HTTP/1.1 503 Service Unavailable\r\n", 0), 0u);
  EXPECT_NE(length.find("content-length: 4\r\n"), std::string::npos);
  EXPECT_NE(length.find("connection: keep-alive\r\n"), std::string::npos);
  EXPECT_NE(length.find("retry-after: 2\r\n"), std::string::npos);
  EXPECT_EQ(length.substr(length.size() - 4), "\r\n\r\n");
  const std::string chunked =
      SerializeHead(response, BodyFraming::kChunked, HttpRequest::Connection::kKeepAlive);
  EXPECT_NE(chunked.find("transfer-encoding: chunked\r\n"), std::string::npos);
  EXPECT_EQ(chunked.find("content-length"), std::string::npos);
  const std::string close =
      SerializeHead(response, BodyFraming::kClose, HttpRequest::Connection::kKeepAlive);
  EXPECT_NE(close.find("connection: close\r\n"), std::string::npos);
}

TEST(HttpMessage, AHeaderValueCannotBreakOut) {
  HttpResponse response;
  response.headers = {{"x-request-id", "a\r\nset-cookie: b"}};
  const std::string head =
      SerializeHead(response, BodyFraming::kLength, HttpRequest::Connection::kClose);
  EXPECT_EQ(head.find("\nset-cookie"), std::string::npos);
}

TEST(HttpMessage, PathHasNoQuery) {
  HttpRequest request;
  request.target = "/v1/models?x=1#y";
  EXPECT_EQ(request.path(), "/v1/models");
}

}  // namespace
}  // namespace tessera::server
