#include "server/core/errors.h"

#include <array>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "scheduler/reason.h"

namespace tessera::server {
namespace {

constexpr absl::string_view kPayload = "tessera/error";

using absl::StatusCode;
constexpr const char* kBadRequest = "invalid_request_error";
constexpr const char* kServerError = "server_error";

constexpr std::array kRows = {
    ErrorRow{Condition::kQueueFull, StatusCode::kUnavailable, "QUEUE_FULL", 503, kServerError,
             "overloaded", Retry::kYes, 1000},
    ErrorRow{Condition::kQueueTimeout, StatusCode::kUnavailable, "QUEUE_TIMEOUT", 503, kServerError,
             "overloaded", Retry::kYes, 2000},
    ErrorRow{Condition::kDraining, StatusCode::kUnavailable, "DRAINING", 503, kServerError,
             "draining", Retry::kYes, 1000},
    ErrorRow{Condition::kUnavailable, StatusCode::kUnavailable, "ENGINE_UNAVAILABLE", 503,
             kServerError, "unavailable", Retry::kYes, 1000},
    ErrorRow{Condition::kInterrupted, StatusCode::kAborted, "INTERRUPTED", 500, kServerError,
             "interrupted", Retry::kCallerDecides, 0},
    ErrorRow{Condition::kSlowConsumer, StatusCode::kAborted, "SLOW_CONSUMER", 500, kServerError,
             "slow_consumer", Retry::kCallerDecides, 0},
    ErrorRow{Condition::kContextLength, StatusCode::kInvalidArgument, "CONTEXT_LENGTH_EXCEEDED",
             400, kBadRequest, "context_length_exceeded", Retry::kNo, 0},
    ErrorRow{Condition::kInvalidParameter, StatusCode::kInvalidArgument, "INVALID_PARAMETER", 400,
             kBadRequest, "invalid_value", Retry::kNo, 0},
    ErrorRow{Condition::kTemplateFailed, StatusCode::kInvalidArgument, "CHAT_TEMPLATE_FAILED", 400,
             kBadRequest, "chat_template_failed", Retry::kNo, 0},
    ErrorRow{Condition::kUnsupported, StatusCode::kUnimplemented, "NOT_OFFERED", 400, kBadRequest,
             "unsupported_parameter", Retry::kNo, 0},
    ErrorRow{Condition::kModelNotFound, StatusCode::kNotFound, "MODEL_NOT_FOUND", 404, kBadRequest,
             "model_not_found", Retry::kNo, 0},
    ErrorRow{Condition::kModelLoading, StatusCode::kUnavailable, "MODEL_LOADING", 503, kServerError,
             "model_loading", Retry::kYes, 2000},
    ErrorRow{Condition::kModelFailed, StatusCode::kFailedPrecondition, "MODEL_FAILED", 400,
             kBadRequest, "model_failed", Retry::kNo, 0},
    ErrorRow{Condition::kDuplicateRequest, StatusCode::kAlreadyExists, "DUPLICATE_REQUEST_ID", 400,
             kBadRequest, "duplicate_request_id", Retry::kNo, 0},
    ErrorRow{Condition::kNotFound, StatusCode::kNotFound, "NOT_FOUND", 404, kBadRequest,
             "not_found", Retry::kNo, 0},
    ErrorRow{Condition::kPrecondition, StatusCode::kFailedPrecondition, "FAILED_PRECONDITION", 400,
             kBadRequest, "failed_precondition", Retry::kNo, 0},
    ErrorRow{Condition::kDeadline, StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED", 504,
             kServerError, "deadline_exceeded", Retry::kCallerDecides, 0},
    ErrorRow{Condition::kCancelled, StatusCode::kCancelled, "CANCELLED", 499, kBadRequest,
             "cancelled", Retry::kCallerDecides, 0},
    ErrorRow{Condition::kTooLarge, StatusCode::kResourceExhausted, "TOO_LARGE", 413, kBadRequest,
             "too_large", Retry::kNo, 0},
    ErrorRow{Condition::kInternal, StatusCode::kInternal, "INTERNAL", 500, kServerError, "internal",
             Retry::kYes, 0},
};

// The condition of a status that names none.
Condition ConditionOf(StatusCode code, OutputSent sent) {
  switch (code) {
    case StatusCode::kUnavailable:
      return sent == OutputSent::kYes ? Condition::kInterrupted : Condition::kUnavailable;
    case StatusCode::kAborted:
      return Condition::kInterrupted;
    case StatusCode::kInvalidArgument:
    case StatusCode::kOutOfRange:
      return Condition::kInvalidParameter;
    case StatusCode::kUnimplemented:
      return Condition::kUnsupported;
    case StatusCode::kNotFound:
      return Condition::kNotFound;
    case StatusCode::kAlreadyExists:
      return Condition::kDuplicateRequest;
    case StatusCode::kFailedPrecondition:
      return Condition::kPrecondition;
    case StatusCode::kDeadlineExceeded:
      return Condition::kDeadline;
    case StatusCode::kCancelled:
      return Condition::kCancelled;
    case StatusCode::kResourceExhausted:
      return Condition::kTooLarge;
    default:
      return Condition::kInternal;
  }
}

// The engine names its reasons in one word.
std::optional<Condition> ConditionOfReason(absl::string_view reason) {
  if (reason == "QUEUE_FULL") return Condition::kQueueFull;
  if (reason == "QUEUE_TIMEOUT") return Condition::kQueueTimeout;
  if (reason == "DRAINING" || reason == "MODEL_UNLOADED") return Condition::kDraining;
  if (reason == "SLOW_CONSUMER") return Condition::kSlowConsumer;
  if (reason == "DEADLINE") return Condition::kDeadline;
  return std::nullopt;
}

std::string Encode(const ErrorDetails& details) {
  nlohmann::json json = {{"condition", static_cast<int>(details.condition)},
                         {"type", details.resource_type},
                         {"name", details.resource_name}};
  if (details.retry_after) json["retry_ns"] = details.retry_after->count();
  for (const FieldViolation& violation : details.violations) {
    json["violations"].push_back({violation.field, violation.description});
  }
  for (const auto& [key, value] : details.metadata) json["metadata"].push_back({key, value});
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<ErrorDetails> Decode(const Status& status) {
  const auto payload = status.GetPayload(kPayload);
  if (!payload) return std::nullopt;
  const auto json = nlohmann::json::parse(std::string(*payload), nullptr, false);
  TESSERA_CHECK(json.is_object());  // only Encode writes it
  ErrorDetails details;
  details.condition = static_cast<Condition>(json.value("condition", 0));
  details.resource_type = json.value("type", "");
  details.resource_name = json.value("name", "");
  if (json.contains("retry_ns")) details.retry_after = Duration(json.value("retry_ns", int64_t{0}));
  if (json.contains("violations")) {
    for (const auto& pair : json["violations"]) details.violations.push_back({pair[0], pair[1]});
  }
  if (json.contains("metadata")) {
    for (const auto& pair : json["metadata"]) details.metadata.emplace_back(pair[0], pair[1]);
  }
  return details;
}

}  // namespace

const ErrorRow& RowOf(Condition condition) {
  for (const ErrorRow& row : kRows) {
    if (row.condition == condition) return row;
  }
  return kRows.back();
}

Status MakeError(const ErrorDetails& details, absl::string_view message) {
  Status status(RowOf(details.condition).code, message);
  status.SetPayload(kPayload, absl::Cord(Encode(details)));
  return status;
}

Status MakeError(Condition condition, absl::string_view message) {
  ErrorDetails details;
  details.condition = condition;
  return MakeError(details, message);
}

Status InvalidFields(std::vector<FieldViolation> violations) {
  std::string message;
  for (const FieldViolation& violation : violations) {
    // The details list all; the message stays short enough for a header.
    if (message.size() > 512) {
      absl::StrAppend(&message, "; and more");
      break;
    }
    absl::StrAppend(&message, message.empty() ? "" : "; ", violation.field, ": ",
                    violation.description);
  }
  ErrorDetails details;
  details.condition = Condition::kInvalidParameter;
  details.violations = std::move(violations);
  return MakeError(details, message);
}

Status WithFieldName(const Status& status, absl::string_view field, absl::string_view name) {
  std::optional<ErrorDetails> details = Decode(status);
  if (!details) return status;
  bool renamed = false;
  for (FieldViolation& one : details->violations) {
    const absl::string_view path = one.field;
    if (!absl::StartsWith(path, field)) continue;
    const absl::string_view rest = path.substr(field.size());
    if (!rest.empty() && rest[0] != '.' && rest[0] != '[') continue;
    one.field = absl::StrCat(name, rest);
    renamed = true;
  }
  if (!renamed) return status;
  if (details->condition != Condition::kInvalidParameter) {
    return MakeError(*details, status.message());
  }
  return InvalidFields(std::move(details->violations));
}

Status ModelNotFound(absl::string_view model) {
  ErrorDetails details;
  details.condition = Condition::kModelNotFound;
  details.resource_type = "model";
  details.resource_name = std::string(model.substr(0, 256));
  return MakeError(details, absl::StrCat("there is no model \"", model.substr(0, 256),
                                         "\" here; list the models to see which there are"));
}

ErrorReport ReportOf(const Status& status, OutputSent sent) {
  ErrorReport report;
  const std::optional<ErrorDetails> details = Decode(status);
  if (details) {
    report.details = *details;
  } else {
    report.details.condition =
        ConditionOfReason(scheduler::ReasonOf(status)).value_or(ConditionOf(status.code(), sent));
  }
  if (sent == OutputSent::kYes &&
      RowOf(report.details.condition).code == StatusCode::kUnavailable) {
    report.details.condition = Condition::kInterrupted;
    report.details.retry_after.reset();
  }
  report.row = &RowOf(report.details.condition);
  if (!report.details.retry_after && report.row->retry_after_ms > 0) {
    report.details.retry_after = std::chrono::milliseconds(report.row->retry_after_ms);
  }
  report.message = report.details.condition == Condition::kInternal
                       ? "internal error; the server's log has more under the request's id"
                       : std::string(status.message());
  return report;
}

}  // namespace tessera::server
