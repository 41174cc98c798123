#include "server/http/openai_error.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/http/openai_json.h"

namespace tessera::server {
namespace {

constexpr size_t kMaxMessageBytes = 4096;

// Paths that are named otherwise here, most specific first.
struct Renaming {
  absl::string_view from;
  absl::string_view completions;
  absl::string_view chat;
};
constexpr Renaming kRenamed[] = {
    {"prompt.token_ids", "prompt", "messages"},
    {"prompt.text", "prompt", "messages"},
    {"prompt.truncate_to", "truncate_prompt_tokens", "truncate_prompt_tokens"},
    {"prompt", "prompt", "messages"},
    {"output.prompt_logprobs", "logprobs", "top_logprobs"},
    {"output.logprobs", "logprobs", "top_logprobs"},
    {"scheduling.cache_scope", "cache_salt", "cache_salt"},
    {"template_args", "chat_template_kwargs", "chat_template_kwargs"},
};

// True when `path` is `part` or goes on into it.
bool StartsWithPart(absl::string_view path, absl::string_view part) {
  if (!absl::StartsWith(path, part)) return false;
  return path.size() == part.size() || path[part.size()] == '[' || path[part.size()] == '.';
}

std::string Body(absl::string_view message, absl::string_view type, absl::string_view param,
                 absl::string_view code) {
  nlohmann::ordered_json error;
  error["message"] = std::string(message);
  error["type"] = std::string(type);
  error["param"] = nullptr;
  if (!param.empty()) error["param"] = std::string(param);
  error["code"] = nullptr;
  if (!code.empty()) error["code"] = std::string(code);
  nlohmann::ordered_json body;
  body["error"] = std::move(error);
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string MessageOf(const ErrorReport& report, OpenAiEndpoint endpoint) {
  const Condition condition = report.details.condition;
  const bool names_fields =
      condition == Condition::kInvalidParameter || condition == Condition::kUnsupported;
  if (!names_fields || report.details.violations.empty()) return report.message;
  std::string message;
  for (const FieldViolation& one : report.details.violations) {
    if (message.size() > kMaxMessageBytes) return absl::StrCat(message, "; and more");
    absl::StrAppend(&message, message.empty() ? "" : "; ", OpenAiFieldName(endpoint, one.field),
                    ": ", one.description);
  }
  return message;
}

std::string ParamOf(const ErrorReport& report, OpenAiEndpoint endpoint) {
  if (!report.details.violations.empty()) {
    return OpenAiFieldName(endpoint, report.details.violations.front().field);
  }
  if (report.details.condition == Condition::kModelNotFound) return "model";
  if (report.details.condition == Condition::kTemplateFailed) return "messages";
  return "";
}

}  // namespace

std::string OpenAiFieldName(OpenAiEndpoint endpoint, absl::string_view path) {
  (void)absl::ConsumePrefix(&path, "generation.");
  if (absl::StartsWith(path, "constraint.")) return "response_format";
  for (const Renaming& one : kRenamed) {
    if (!StartsWithPart(path, one.from)) continue;
    const bool chat = endpoint == OpenAiEndpoint::kChat;
    // A place in a prompt says nothing about messages.
    if (chat && one.chat == "messages") return "messages";
    return absl::StrCat(chat ? one.chat : one.completions, path.substr(one.from.size()));
  }
  for (const absl::string_view group : {"sampling.", "stopping.", "output.", "scheduling."}) {
    if (absl::ConsumePrefix(&path, group)) break;
  }
  return std::string(path);
}

std::string OpenAiErrorBody(const Status& status, OpenAiEndpoint endpoint) {
  const ErrorReport report = ReportOf(status);
  return Body(MessageOf(report, endpoint), report.row->openai_type, ParamOf(report, endpoint),
              report.row->openai_code);
}

HttpResponse OpenAiErrorResponse(const Status& status, OpenAiEndpoint endpoint) {
  const ErrorReport report = ReportOf(status);
  HttpResponse response = OpenAiJson(OpenAiErrorBody(status, endpoint));
  response.status = report.row->http_status;
  if (report.details.retry_after && report.row->retry == Retry::kYes) {
    const int64_t milliseconds =
        std::chrono::ceil<std::chrono::milliseconds>(*report.details.retry_after).count();
    response.headers.emplace_back("retry-after-ms", absl::StrCat(milliseconds));
    response.headers.emplace_back("retry-after", absl::StrCat((milliseconds + 999) / 1000));
  }
  return response;
}

HttpResponse OpenAiRefusal(int http_status, absl::string_view code, absl::string_view message) {
  const absl::string_view type = http_status >= 500 ? "server_error" : "invalid_request_error";
  HttpResponse response = OpenAiJson(Body(message, type, "", code));
  response.status = http_status;
  return response;
}

HttpResponse OpenAiJson(std::string body) {
  HttpResponse response;
  response.headers.emplace_back("content-type", "application/json");
  response.body = std::move(body);
  return response;
}

}  // namespace tessera::server
