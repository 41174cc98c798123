// What can go wrong with a request, once for all front doors: one table from condition to gRPC
// code, reason, HTTP status and retry advice, and the details that travel inside an absl::Status.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/foundation/clock.h"
#include "config/foundation/status.h"

namespace tessera::server {

enum class Condition : uint8_t {
  kQueueFull,         // no room for another waiting request
  kQueueTimeout,      // waited longer than the request allows
  kDraining,          // the daemon or the model takes no new requests
  kUnavailable,       // the engine cannot serve it now; nothing was sent
  kInterrupted,       // ended by the server after output was sent
  kSlowConsumer,      // the reader stayed behind too long
  kContextLength,     // prompt + max_tokens do not fit
  kInvalidParameter,  // fields of the request are wrong; all are listed
  kTemplateFailed,    // the chat template refuses these messages
  kUnsupported,       // known, and not offered
  kModelNotFound,
  kModelLoading,
  kModelFailed,       // loading failed; asking again will not help
  kDuplicateRequest,  // this request_id is in flight
  kNotFound,          // something else that was named does not exist
  kPrecondition,
  kDeadline,
  kCancelled,
  kTooLarge,
  kInternal,
};

enum class Retry : uint8_t { kNo, kYes, kCallerDecides };

struct ErrorRow {
  Condition condition;
  absl::StatusCode code;
  const char* reason;  // of google.rpc.ErrorInfo; stable
  int http_status;
  const char* openai_type;
  const char* openai_code;  // empty: null
  Retry retry;
  int retry_after_ms;  // advice where the failure brings none; 0: none
};
[[nodiscard]] const ErrorRow& RowOf(Condition condition);

// One refused field: its path in the request ("sampling.top_p") and what it must be.
struct FieldViolation {
  std::string field;
  std::string description;
  bool operator==(const FieldViolation&) const = default;
};

// What a failure carries besides its message.
struct ErrorDetails {
  Condition condition = Condition::kInternal;
  std::vector<FieldViolation> violations;
  std::optional<Duration> retry_after;
  std::string resource_type;  // "model", "request"
  std::string resource_name;
  std::vector<std::pair<std::string, std::string>> metadata;
};

// A status of the condition's code with the details as payload.
[[nodiscard]] Status MakeError(const ErrorDetails& details, absl::string_view message);
[[nodiscard]] Status MakeError(Condition condition, absl::string_view message);
// INVALID_ARGUMENT with all violations; the message names each.
[[nodiscard]] Status InvalidFields(std::vector<FieldViolation> violations);
// The same error where the client knows a field under another name: violations of `field` and of
// its parts ("prompt.text") are told of `name`.
[[nodiscard]] Status WithFieldName(const Status& status, absl::string_view field,
                                   absl::string_view name);
[[nodiscard]] Status ModelNotFound(absl::string_view model);

enum class OutputSent : uint8_t { kNo, kYes };

// What a client is told: the row, details with retry advice filled in, and a message that holds no
// text of a library. `status` may come from anywhere; without payload its code decides.
struct ErrorReport {
  const ErrorRow* row = nullptr;
  ErrorDetails details;
  std::string message;
};
[[nodiscard]] ErrorReport ReportOf(const Status& status, OutputSent sent = OutputSent::kNo);

}  // namespace tessera::server
