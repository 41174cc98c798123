#include "config/foundation/status.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace tessera {
namespace {

constexpr char kPartsUrl[] = "tessera/error_parts";
constexpr char kSeparator = '\x1f';

}  // namespace

Status Error(absl::StatusCode code, const ErrorParts& parts) {
  std::string message = parts.what;
  if (!parts.where.empty()) absl::StrAppend(&message, "; where: ", parts.where);
  if (!parts.why.empty()) absl::StrAppend(&message, "; why: ", parts.why);
  if (!parts.fix.empty()) absl::StrAppend(&message, "; fix: ", parts.fix);
  Status status(code, message);
  std::string packed;
  for (const std::string* part : {&parts.what, &parts.where, &parts.why, &parts.fix}) {
    absl::StrAppend(&packed, *part, std::string(1, kSeparator));
  }
  status.SetPayload(kPartsUrl, absl::Cord(packed));
  return status;
}

ErrorParts PartsOf(const Status& status) {
  ErrorParts parts;
  absl::optional<absl::Cord> payload = status.GetPayload(kPartsUrl);
  if (!payload.has_value()) {
    parts.what = std::string(status.message());
    return parts;
  }
  const std::string packed(*payload);
  std::string* fields[] = {&parts.what, &parts.where, &parts.why, &parts.fix};
  size_t begin = 0;
  for (std::string* field : fields) {
    const size_t end = packed.find(kSeparator, begin);
    if (end == std::string::npos) break;
    *field = packed.substr(begin, end - begin);
    begin = end + 1;
  }
  return parts;
}

std::string FourLines(const Status& status) {
  const ErrorParts parts = PartsOf(status);
  std::string text = absl::StrCat("error: ", parts.what, "\n");
  const auto add = [&text](absl::string_view label, const std::string& part) {
    if (part.empty()) return;
    // A part of several lines stays in its column.
    absl::StrAppend(&text, label, absl::StrReplaceAll(part, {{"\n", "\n         "}}), "\n");
  };
  add("  where  ", parts.where);
  add("  why    ", parts.why);
  add("  fix    ", parts.fix);
  return text;
}

Status Annotate(const Status& status, absl::string_view prefix) {
  if (status.ok()) return status;
  ErrorParts parts = PartsOf(status);
  parts.what = absl::StrCat(prefix, ": ", parts.what);
  Status annotated = Error(status.code(), parts);
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    if (url != kPartsUrl) annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace tessera
