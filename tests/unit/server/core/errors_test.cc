#include "server/core/errors.h"

#include <gtest/gtest.h>

#include <set>

#include "scheduler/reason.h"

namespace tessera::server {
namespace {

constexpr int kConditions = static_cast<int>(Condition::kInternal) + 1;

std::vector<const ErrorRow*> AllRows() {
  std::vector<const ErrorRow*> rows;
  for (int i = 0; i < kConditions; ++i) rows.push_back(&RowOf(static_cast<Condition>(i)));
  return rows;
}

TEST(ErrorTable, HasOneRowForEachCondition) {
  std::set<std::string> reasons;
  for (int i = 0; i < kConditions; ++i) {
    const ErrorRow& row = RowOf(static_cast<Condition>(i));
    EXPECT_EQ(static_cast<int>(row.condition), i);
    EXPECT_TRUE(reasons.insert(row.reason).second) << row.reason;
  }
}

TEST(ErrorTable, RowsAgreeWithThemselves) {
  for (const ErrorRow* row : AllRows()) {
    SCOPED_TRACE(row->reason);
    EXPECT_NE(row->code, absl::StatusCode::kOk);
    EXPECT_GE(row->http_status, 400);
    // Known but not offered is the client's matter: never 501.
    EXPECT_NE(row->http_status, 501);
    const bool of_client = row->http_status < 500;
    EXPECT_STREQ(row->openai_type, of_client ? "invalid_request_error" : "server_error");
    // Pressure may be asked again, and says when.
    if (row->code == absl::StatusCode::kUnavailable) {
      EXPECT_EQ(row->http_status, 503);
      EXPECT_EQ(row->retry, Retry::kYes);
      EXPECT_GT(row->retry_after_ms, 0);
    } else {
      EXPECT_EQ(row->retry_after_ms, 0);
    }
    if (of_client) {
      EXPECT_NE(row->retry, Retry::kYes);
    }
  }
}

TEST(ErrorTable, CodesOfTheContract) {
  const auto check = [](Condition condition, absl::StatusCode code, int http) {
    EXPECT_EQ(RowOf(condition).code, code);
    EXPECT_EQ(RowOf(condition).http_status, http);
  };
  check(Condition::kQueueFull, absl::StatusCode::kUnavailable, 503);
  check(Condition::kContextLength, absl::StatusCode::kInvalidArgument, 400);
  check(Condition::kUnsupported, absl::StatusCode::kUnimplemented, 400);
  check(Condition::kModelNotFound, absl::StatusCode::kNotFound, 404);
  check(Condition::kModelFailed, absl::StatusCode::kFailedPrecondition, 400);
  check(Condition::kDuplicateRequest, absl::StatusCode::kAlreadyExists, 400);
  check(Condition::kDeadline, absl::StatusCode::kDeadlineExceeded, 504);
  check(Condition::kCancelled, absl::StatusCode::kCancelled, 499);
  check(Condition::kSlowConsumer, absl::StatusCode::kAborted, 500);
  check(Condition::kTooLarge, absl::StatusCode::kResourceExhausted, 413);
}

TEST(Errors, DetailsSurviveTheStatus) {
  ErrorDetails details;
  details.condition = Condition::kModelLoading;
  details.violations = {{"a.b", "must be \"x\"\n"}, {"c[2]", ""}};
  details.retry_after = std::chrono::nanoseconds(1'234'567'890'123);
  details.resource_type = "model";
  details.resource_name = "m/ä";
  details.metadata = {{"tokens_sent", "3"}, {"tokens_sent", "4"}};
  const Status status = MakeError(details, "told");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "told");
  const ErrorReport report = ReportOf(status);
  EXPECT_EQ(report.row, &RowOf(Condition::kModelLoading));
  EXPECT_EQ(report.details.condition, details.condition);
  EXPECT_EQ(report.details.violations, details.violations);
  EXPECT_EQ(report.details.retry_after, details.retry_after);
  EXPECT_EQ(report.details.resource_type, details.resource_type);
  EXPECT_EQ(report.details.resource_name, details.resource_name);
  EXPECT_EQ(report.details.metadata, details.metadata);
  EXPECT_EQ(report.message, "told");
}

TEST(Errors, EveryConditionSurvivesTheStatus) {
  for (const ErrorRow* row : AllRows()) {
    const Status status = MakeError(row->condition, "m");
    EXPECT_EQ(status.code(), row->code);
    EXPECT_EQ(ReportOf(status).row, row);
  }
}

TEST(Errors, BrokenUtf8InDetailsIsReplaced) {
  const ErrorReport report = ReportOf(InvalidFields({{"f\xff", "d\xc3"}}));
  ASSERT_EQ(report.details.violations.size(), 1u);
  EXPECT_EQ(report.details.violations[0].field, "f\xEF\xBF\xBD");
  EXPECT_EQ(report.details.violations[0].description, "d\xEF\xBF\xBD");
}

TEST(Errors, RetryAdviceIsTheRowsUnlessTheFailureBringsItsOwn) {
  EXPECT_EQ(ReportOf(MakeError(Condition::kQueueFull, "")).details.retry_after,
            std::chrono::milliseconds(RowOf(Condition::kQueueFull).retry_after_ms));
  EXPECT_EQ(ReportOf(MakeError(Condition::kTooLarge, "")).details.retry_after, std::nullopt);
}

TEST(Errors, InvalidFieldsNamesAllAndKeepsTheMessageShort) {
  const Status two = InvalidFields({{"x", "must be 1"}, {"y", "must be 2"}});
  EXPECT_EQ(two.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(two.message(), "x: must be 1; y: must be 2");
  std::vector<FieldViolation> many(1000, {"field", "must be something else"});
  const Status status = InvalidFields(many);
  EXPECT_LT(status.message().size(), 600u);
  EXPECT_EQ(ReportOf(status).details.violations.size(), 1000u);
}

TEST(Errors, ModelNotFoundClipsTheName) {
  const Status status = ModelNotFound(std::string(100'000, 'm'));
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_LT(status.message().size(), 400u);
  const ErrorReport report = ReportOf(status);
  EXPECT_EQ(report.details.resource_type, "model");
  EXPECT_EQ(report.details.resource_name, std::string(256, 'm'));
}

TEST(ReportOf, MapsTheEnginesReasons) {
  const auto condition = [](const char* reason) {
    return ReportOf(scheduler::WithReason(absl::UnavailableError("x"), reason)).details.condition;
  };
  EXPECT_EQ(condition("QUEUE_FULL"), Condition::kQueueFull);
  EXPECT_EQ(condition("QUEUE_TIMEOUT"), Condition::kQueueTimeout);
  EXPECT_EQ(condition("DRAINING"), Condition::kDraining);
  EXPECT_EQ(condition("MODEL_UNLOADED"), Condition::kDraining);
  EXPECT_EQ(condition("SLOW_CONSUMER"), Condition::kSlowConsumer);
  EXPECT_EQ(condition("DEADLINE"), Condition::kDeadline);
  EXPECT_EQ(condition("something else"), Condition::kUnavailable);
}

TEST(ReportOf, MapsEveryCodeOfAForeignStatus) {
  const auto condition = [](absl::StatusCode code) {
    return ReportOf(Status(code, "text")).details.condition;
  };
  EXPECT_EQ(condition(absl::StatusCode::kUnavailable), Condition::kUnavailable);
  EXPECT_EQ(condition(absl::StatusCode::kAborted), Condition::kInterrupted);
  EXPECT_EQ(condition(absl::StatusCode::kInvalidArgument), Condition::kInvalidParameter);
  EXPECT_EQ(condition(absl::StatusCode::kOutOfRange), Condition::kInvalidParameter);
  EXPECT_EQ(condition(absl::StatusCode::kUnimplemented), Condition::kUnsupported);
  EXPECT_EQ(condition(absl::StatusCode::kNotFound), Condition::kNotFound);
  EXPECT_EQ(condition(absl::StatusCode::kFailedPrecondition), Condition::kPrecondition);
  EXPECT_EQ(condition(absl::StatusCode::kDeadlineExceeded), Condition::kDeadline);
  EXPECT_EQ(condition(absl::StatusCode::kCancelled), Condition::kCancelled);
  EXPECT_EQ(condition(absl::StatusCode::kResourceExhausted), Condition::kTooLarge);
  for (const auto code : {absl::StatusCode::kInternal, absl::StatusCode::kUnknown,
                          absl::StatusCode::kDataLoss, absl::StatusCode::kPermissionDenied}) {
    EXPECT_EQ(condition(code), Condition::kInternal);
  }
}

TEST(ReportOf, TellsNothingOfAnInternalError) {
  for (const Status& status :
       {absl::InternalError("heap at 0x7ffe1234"), absl::UnknownError("heap at 0x7ffe1234"),
        absl::DataLossError("/secret/path"), MakeError(Condition::kInternal, "heap at 0x7f")}) {
    const ErrorReport report = ReportOf(status);
    EXPECT_EQ(report.message.find("0x7f"), std::string::npos);
    EXPECT_EQ(report.message.find("secret"), std::string::npos);
    EXPECT_FALSE(report.message.empty());
  }
}

TEST(WithFieldName, RenamesTheFieldAndItsPartsAlone) {
  const Status status =
      InvalidFields({{"prompt", "a"}, {"prompt.text", "b"}, {"prompt[1]", "c"}, {"prompts", "d"}});
  const ErrorReport report = ReportOf(WithFieldName(status, "prompt", "inputs[2]"));
  std::vector<std::string> fields;
  for (const FieldViolation& one : report.details.violations) fields.push_back(one.field);
  EXPECT_EQ(fields,
            (std::vector<std::string>{"inputs[2]", "inputs[2].text", "inputs[2][1]", "prompts"}));
  EXPECT_EQ(report.message.find("inputs[2]: a; inputs[2].text: b"), 0u) << report.message;
}

TEST(WithFieldName, KeepsEverythingElse) {
  ErrorDetails details;
  details.condition = Condition::kContextLength;
  details.violations = {{"prompt", "too long"}};
  const Status status =
      WithFieldName(MakeError(details, "the prompt is long"), "prompt", "context");
  EXPECT_EQ(ReportOf(status).details.condition, Condition::kContextLength);
  EXPECT_EQ(ReportOf(status).details.violations.at(0).field, "context");
  EXPECT_EQ(status.message(), "the prompt is long");
  const Status other = absl::UnavailableError("x");
  EXPECT_EQ(WithFieldName(other, "prompt", "context"), other);
}

// A client that has read part of an answer must not take the failure for "nothing happened".
TEST(ReportOf, AfterOutputNothingIsUnavailable) {
  for (const Status& status :
       {Status(absl::UnavailableError("engine")), MakeError(Condition::kDraining, "x"),
        scheduler::WithReason(absl::UnavailableError("x"), "MODEL_UNLOADED")}) {
    const ErrorReport before = ReportOf(status, OutputSent::kNo);
    EXPECT_EQ(before.row->code, absl::StatusCode::kUnavailable);
    EXPECT_TRUE(before.details.retry_after.has_value());
    const ErrorReport after = ReportOf(status, OutputSent::kYes);
    EXPECT_EQ(after.row->code, absl::StatusCode::kAborted);
    EXPECT_EQ(after.details.retry_after, std::nullopt);
  }
  EXPECT_EQ(ReportOf(MakeError(Condition::kDeadline, ""), OutputSent::kYes).row->code,
            absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace tessera::server
