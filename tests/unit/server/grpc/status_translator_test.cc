#include "server/grpc/status_translator.h"

#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/core/errors.h"

namespace tessera::server {
namespace {

google::rpc::Status DetailsIn(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

// The detail of type T, which must be there once.
template <typename T>
std::optional<T> Find(const google::rpc::Status& details) {
  std::optional<T> found;
  for (const google::protobuf::Any& any : details.details()) {
    T one;
    if (!any.UnpackTo(&one)) continue;
    EXPECT_FALSE(found.has_value());
    found = one;
  }
  return found;
}

TEST(StatusTranslator, OkIsOk) {
  const grpc::Status status = ToGrpc(absl::OkStatus(), "r");
  EXPECT_TRUE(status.ok());
  EXPECT_TRUE(status.error_details().empty());
}

TEST(StatusTranslator, EveryFailureSaysWhatAndWhose) {
  const Status failure = MakeError(Condition::kQueueFull, "the line is full");
  const grpc::Status status = ToGrpc(failure, "req-1");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "the line is full");
  const google::rpc::Status details = DetailsIn(status);
  EXPECT_EQ(details.code(), 14);
  EXPECT_EQ(details.message(), "the line is full");
  const auto info = Find<google::rpc::ErrorInfo>(details);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->domain(), "tessera");
  EXPECT_EQ(info->reason(), "QUEUE_FULL");
  ASSERT_TRUE(Find<google::rpc::RequestInfo>(details).has_value());
  EXPECT_EQ(Find<google::rpc::RequestInfo>(details)->request_id(), "req-1");
  ASSERT_TRUE(Find<google::rpc::RetryInfo>(details).has_value());
  EXPECT_EQ(Find<google::rpc::RetryInfo>(details)->retry_delay().seconds(), 1);
  EXPECT_FALSE(Find<google::rpc::BadRequest>(details).has_value());
  EXPECT_EQ(DetailsOf(failure, "req-1"), status.error_details());
  EXPECT_FALSE(Find<google::rpc::RequestInfo>(DetailsIn(ToGrpc(failure, ""))).has_value());
}

TEST(StatusTranslator, BadFieldsAreListed) {
  const grpc::Status status =
      ToGrpc(InvalidFields({{"a", "must be 1"}, {"b[2]", "must be 2"}}), "");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto bad = Find<google::rpc::BadRequest>(DetailsIn(status));
  ASSERT_TRUE(bad.has_value());
  ASSERT_EQ(bad->field_violations_size(), 2);
  EXPECT_EQ(bad->field_violations(0).field(), "a");
  EXPECT_EQ(bad->field_violations(0).description(), "must be 1");
  EXPECT_EQ(bad->field_violations(1).field(), "b[2]");
  EXPECT_FALSE(Find<google::rpc::RetryInfo>(DetailsIn(status)).has_value());
}

TEST(StatusTranslator, ResourcesPreconditionsAndFigures) {
  const auto resource = Find<google::rpc::ResourceInfo>(DetailsIn(ToGrpc(ModelNotFound("m"), "")));
  ASSERT_TRUE(resource.has_value());
  EXPECT_EQ(resource->resource_type(), "model");
  EXPECT_EQ(resource->resource_name(), "m");
  ErrorDetails failed;
  failed.condition = Condition::kModelFailed;
  failed.violations = {{"model", "its file is damaged"}};
  const auto failure =
      Find<google::rpc::PreconditionFailure>(DetailsIn(ToGrpc(MakeError(failed, "x"), "")));
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->violations(0).type(), "MODEL_FAILED");
  EXPECT_EQ(failure->violations(0).subject(), "model");
  EXPECT_EQ(failure->violations(0).description(), "its file is damaged");
  ErrorDetails lost;
  lost.condition = Condition::kInterrupted;
  lost.metadata = {{"tokens_sent", "12"}};
  const auto info =
      Find<google::rpc::ErrorInfo>(DetailsIn(ToGrpc(MakeError(lost, "engine lost"), "")));
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->metadata().at("tokens_sent"), "12");
}

TEST(StatusTranslator, NothingOfALibraryIsTold) {
  const grpc::Status status = ToGrpc(absl::InternalError("shm name 7f31"), "r");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(status.error_message().find("7f31"), std::string::npos);
  EXPECT_EQ(status.error_details().find("7f31"), std::string::npos);
}

// Clients drop what is longer, and a call without a status helps nobody.
TEST(StatusTranslator, TheTrailerStaysSmallWhateverItHolds) {
  ErrorDetails huge;
  for (int i = 0; i < 1000; ++i) {
    huge.violations.push_back({std::string(1000, 'f'), std::string(5000, 'd')});
  }
  huge.resource_type = "model";
  huge.resource_name = std::string(100'000, 'n');
  huge.retry_after = std::chrono::seconds(5);
  for (int i = 0; i < 100; ++i)
    huge.metadata.emplace_back(std::to_string(i), std::string(999, 'v'));
  for (const Condition condition : {Condition::kInvalidParameter, Condition::kModelFailed,
                                    Condition::kQueueFull, Condition::kInternal}) {
    huge.condition = condition;
    const grpc::Status status =
        ToGrpc(MakeError(huge, std::string(100'000, 'm')), std::string(100'000, 'r'));
    EXPECT_LE(status.error_details().size(), kMaxDetailBytes);
    EXPECT_LE(status.error_message().size(), 1024u);
    EXPECT_EQ(DetailsIn(status).message(), status.error_message());
  }
}

TEST(StatusTranslator, ManyViolationsAreCutNotDropped) {
  std::vector<FieldViolation> many(500, {"sampling.bad_words[7]", "must not be empty"});
  const grpc::Status status = ToGrpc(InvalidFields(many), "r");
  EXPECT_LE(status.error_details().size(), kMaxDetailBytes);
  const auto bad = Find<google::rpc::BadRequest>(DetailsIn(status));
  ASSERT_TRUE(bad.has_value());
  EXPECT_GT(bad->field_violations_size(), 20);
  EXPECT_TRUE(Find<google::rpc::ErrorInfo>(DetailsIn(status)).has_value());
}

// Header values travel percent-encoded: text outside ASCII takes three times its bytes.
TEST(StatusTranslator, MessageAndDetailsTogetherFitTheUsualLimitOfClients) {
  std::string umlauts;
  for (int i = 0; i < 10'000; ++i) umlauts += "\xC3\xA4";
  std::vector<FieldViolation> many(500, {umlauts, umlauts});
  const grpc::Status status = ToGrpc(InvalidFields(many), umlauts);
  size_t bytes = 0;
  for (const char c : status.error_message()) {
    bytes += static_cast<unsigned char>(c) < 0x80 ? 1 : 3;
  }
  const size_t in_base64 = (status.error_details().size() + 2) / 3 * 4;
  EXPECT_LE(in_base64, 4096u);
  bytes += in_base64;
  EXPECT_LT(bytes, 8192u - 512u);  // room for the names and the other headers
}

TEST(StatusTranslator, MessagesAreValidUtf8) {
  std::string text(1023, 'a');
  text += "\xC3\xA4 and more";  // the limit falls into the character
  const grpc::Status status = ToGrpc(Status(absl::StatusCode::kInvalidArgument, text), "");
  EXPECT_EQ(status.error_message(), std::string(1023, 'a'));
  EXPECT_EQ(ToGrpc(Status(absl::StatusCode::kInvalidArgument, "a\xff z"), "").error_message(),
            "a\xEF\xBF\xBD z");
}

}  // namespace
}  // namespace tessera::server
