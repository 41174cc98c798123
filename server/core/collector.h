// A whole answer instead of a stream, for callers that want everything at once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "server/core/frontend.h"
#include "server/core/output.h"

namespace tessera::server {

struct CollectedOutput {
  std::optional<OutputStarted> started;
  std::vector<OutputToken> prompt_tokens;
  std::vector<float> embedding;
  std::vector<OutputDelta> choices;      // by choice, each whole
  std::vector<OutputFinished> finished;  // by choice
  Status error;
};

// Starts the request and calls `done` once, on a pool thread, with the whole answer; not at all
// after the returned handle is cancelled. Keep the handle until then. Errors as Frontend::Start.
[[nodiscard]] StatusOr<std::shared_ptr<RequestHandle>> StartCollected(
    Frontend& frontend, GenerationSpec spec, std::function<void(CollectedOutput)> done);

}  // namespace tessera::server
