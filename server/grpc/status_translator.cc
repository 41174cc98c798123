#include "server/grpc/status_translator.h"

#include <grpcpp/support/status.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/core/errors.h"
#include "server/grpc/duration.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

constexpr size_t kMaxMessageBytes = 1024;

// At most `bytes` of `text`, as valid UTF-8 (protobuf's strings must be).
std::string Clip(absl::string_view text, size_t bytes) {
  std::string clipped;
  Utf8Repair repair;
  repair.Append(text.substr(0, bytes), &clipped);
  if (text.size() <= bytes) repair.Flush(&clipped);
  return clipped;
}

// Adds `detail` unless the whole would become too long.
void AddDetail(const google::protobuf::Message& detail, google::rpc::Status* status) {
  google::protobuf::Any any;
  any.PackFrom(detail);
  if (status->ByteSizeLong() + any.ByteSizeLong() + 8 > kMaxDetailBytes) return;
  *status->add_details() = std::move(any);
}

void AddViolations(const ErrorReport& report, google::rpc::Status* status) {
  if (report.details.violations.empty()) return;
  if (report.row->code == absl::StatusCode::kFailedPrecondition) {
    google::rpc::PreconditionFailure failure;
    for (const FieldViolation& violation : report.details.violations) {
      auto* one = failure.add_violations();
      one->set_type(report.row->reason);
      one->set_subject(Clip(violation.field, 256));
      one->set_description(Clip(violation.description, 512));
    }
    AddDetail(failure, status);
    return;
  }
  google::rpc::BadRequest bad;
  const size_t room = kMaxDetailBytes - status->ByteSizeLong() - 64;
  for (const FieldViolation& violation : report.details.violations) {
    auto* one = bad.add_field_violations();
    one->set_field(Clip(violation.field, 256));
    one->set_description(Clip(violation.description, 512));
    if (bad.ByteSizeLong() > room) {
      bad.mutable_field_violations()->RemoveLast();
      break;
    }
  }
  AddDetail(bad, status);
}

google::rpc::Status MakeDetails(const ErrorReport& report, const std::string& request_id) {
  google::rpc::Status status;
  status.set_code(static_cast<int>(report.row->code));
  status.set_message(Clip(report.message, kMaxMessageBytes));
  google::rpc::ErrorInfo info;
  info.set_reason(report.row->reason);
  info.set_domain("tessera");
  for (const auto& [key, value] : report.details.metadata) {
    (*info.mutable_metadata())[key] = Clip(value, 256);
  }
  AddDetail(info, &status);
  if (!request_id.empty()) {
    google::rpc::RequestInfo request;
    request.set_request_id(Clip(request_id, 256));
    AddDetail(request, &status);
  }
  if (report.details.retry_after) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() = ToProto(*report.details.retry_after);
    AddDetail(retry, &status);
  }
  if (!report.details.resource_type.empty()) {
    google::rpc::ResourceInfo resource;
    resource.set_resource_type(report.details.resource_type);
    resource.set_resource_name(Clip(report.details.resource_name, 256));
    AddDetail(resource, &status);
  }
  AddViolations(report, &status);
  return status;
}

}  // namespace

std::string DetailsOf(const Status& status, const std::string& request_id) {
  return MakeDetails(ReportOf(status), request_id).SerializeAsString();
}

grpc::Status ToGrpc(const Status& status, const std::string& request_id) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status details = MakeDetails(ReportOf(status), request_id);
  return {static_cast<grpc::StatusCode>(details.code()), details.message(),
          details.SerializeAsString()};
}

}  // namespace tessera::server
