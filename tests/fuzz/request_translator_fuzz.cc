// Requests as clients may send them: the first byte chooses the message, the rest is its wire form.
// Whatever parses becomes a spec, is judged, and every refusal fits a trailer.
#include <google/protobuf/message.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "google/rpc/status.pb.h"
#include "server/core/generation_spec.h"
#include "server/grpc/request_translator.h"
#include "server/grpc/status_translator.h"
#include "tessera/v1/inference_service.pb.h"

namespace {

using namespace tessera;
using namespace tessera::server;

void Require(bool condition) {
  if (!condition) std::abort();
}

// A refusal of a request has a client's code and details that can be read.
void CheckRefusal(const Status& status) {
  Require(status.code() == absl::StatusCode::kInvalidArgument ||
          status.code() == absl::StatusCode::kUnimplemented);
  const std::string bytes = DetailsOf(status, "r");
  Require(bytes.size() <= kMaxDetailBytes);
  google::rpc::Status details;
  Require(details.ParseFromString(bytes) && details.details_size() > 0);
  const ErrorReport report = ReportOf(status);
  Require(!report.details.violations.empty());
  for (const FieldViolation& violation : report.details.violations) {
    Require(!violation.field.empty() && !violation.description.empty());
  }
}

void Judge(const GenerationSpec& spec) {
  const Status valid = ValidateSpec(spec, SpecLimits());
  if (!valid.ok()) CheckRefusal(valid);
  const Status ids = ValidateTokenIds(spec, 1000);
  if (!ids.ok()) CheckRefusal(ids);
  if (!valid.ok()) return;
  // What is taken is in range: the engine relies on it.
  const SamplingSpec& sampling = spec.sampling;
  Require(sampling.temperature.value_or(1) >= 0 && sampling.temperature.value_or(1) <= 2);
  Require(sampling.top_p.value_or(1) > 0 && sampling.top_p.value_or(1) <= 1);
  Require(sampling.n.value_or(1) >= 1 && sampling.n.value_or(1) <= SpecLimits().n);
  Require(spec.stopping.max_tokens.value_or(1) >= 1);
  if (spec.stopping.time_limit) {
    Require(TimePoint(std::chrono::hours(1)) + *spec.stopping.time_limit > TimePoint());
  }
}

template <typename Request>
void Try(absl::string_view wire) {
  Request request;
  if (!request.ParseFromArray(wire.data(), static_cast<int>(wire.size()))) return;
  if constexpr (std::is_same_v<Request, v1::GenerateRequest>) {
    Judge(ToSpec(request));
  } else if constexpr (std::is_same_v<Request, v1::ChatRequest>) {
    const StatusOr<GenerationSpec> spec = ToSpec(request);
    if (!spec.ok()) return CheckRefusal(spec.status());
    Judge(*spec);
  } else {
    const StatusOr<std::vector<GenerationSpec>> specs = ToSpecs(request);
    if (!specs.ok()) return CheckRefusal(specs.status());
    for (const GenerationSpec& spec : *specs) Judge(spec);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  // Broken UTF-8 in a field is refused by the parser, which would print each.
  static const bool silent = [] {
    google::protobuf::SetLogHandler(nullptr);
    return true;
  }();
  static_cast<void>(silent);
  const absl::string_view wire(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      Try<v1::GenerateRequest>(wire);
      break;
    case 1:
      Try<v1::ChatRequest>(wire);
      break;
    case 2:
      Try<v1::ScoreRequest>(wire);
      break;
    default:
      Try<v1::EmbedRequest>(wire);
  }
  return 0;
}
