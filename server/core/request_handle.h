// One request on its way: from before anything can suspend until its end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "server/core/generation_spec.h"
#include "server/core/loaded_model.h"
#include "server/core/output.h"

namespace tessera::server {

class RequestHandle;

// Told that there is something to take. Called on a pool thread, one call at a time; once a Take
// has given false, there will be another call. `handle` is the one that Start returns (or is about
// to return). It may call Take itself.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void OnReady(const std::shared_ptr<RequestHandle>& handle) = 0;
};

// What the front door keeps while it serves a request. Destroying it ends the request: the queue's
// reservation, the sequence with its pages and the model are given back. Take is for one thread at
// a time; everything else for any.
class RequestHandle {
 public:
  virtual ~RequestHandle() = default;

  [[nodiscard]] virtual const std::string& request_id() const = 0;
  // Takes everything that is there into `batch` (cleared first). False: nothing, and OnReady will
  // be called. A reader that has an outstanding write does not ask, so it gets larger batches.
  [[nodiscard]] virtual bool Take(OutputBatch& batch) = 0;
  // The client has gone: ends the request at once, never waits; nothing more is delivered.
  virtual void Cancel() = 0;
  // Ends the request with `reason` as its last event (after the output so far).
  virtual void End(const Status& reason) = 0;

  // Null until the model is ready, and after the end.
  [[nodiscard]] virtual ModelPtr model() const = 0;
  // The prompt as tokens; valid and unchanged once a batch had `started`.
  [[nodiscard]] virtual const std::vector<TokenId>& prompt_tokens() const = 0;
};

}  // namespace tessera::server
