// Why the engine ended a request with an error: one word in a status payload, which the server
// turns into ErrorInfo.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tessera::scheduler {

inline constexpr char kReasonUrl[] = "tessera/reason";

// `status` with the reason attached ("QUEUE_FULL", "SLOW_CONSUMER", …).
[[nodiscard]] absl::Status WithReason(absl::Status status, absl::string_view reason);
// Empty when there is none.
[[nodiscard]] std::string ReasonOf(const absl::Status& status);

}  // namespace tessera::scheduler
