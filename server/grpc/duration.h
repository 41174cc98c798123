// Durations between protobuf and the program. Only for sources that see protobuf.
#pragma once

#include <google/protobuf/duration.pb.h>

#include <algorithm>
#include <cstdint>

#include "config/foundation/clock.h"

namespace tessera::server {

// Beyond this, a duration from a client means "without end".
inline constexpr int64_t kMaxDurationSeconds = int64_t{100} * 365 * 86'400;

[[nodiscard]] inline google::protobuf::Duration ToProto(Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(duration.count() / 1'000'000'000);
  proto.set_nanos(static_cast<int32_t>(duration.count() % 1'000'000'000));
  return proto;
}

// Saturates at +-100 years; parts of different sign are added up.
[[nodiscard]] inline Duration FromProto(const google::protobuf::Duration& proto) {
  const int64_t seconds = std::clamp(proto.seconds(), -kMaxDurationSeconds, kMaxDurationSeconds);
  return std::chrono::seconds(seconds) + std::chrono::nanoseconds(proto.nanos());
}

}  // namespace tessera::server
