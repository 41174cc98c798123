// Hands the streams that got output in one turn of the engine to the pool, together.
#pragma once

#include <memory>
#include <vector>

#include "server/core/work_pool.h"

namespace tessera::server {

class Request;

// Engine thread only. A step answers hundreds of streams: posting each would take the pool's lock,
// and often wake one of its threads, once a stream.
class OutputPump {
 public:
  // The pool outlives it.
  explicit OutputPump(WorkPool* pool) : pool_(pool) {}

  // `request` has output for its sink.
  void Add(std::shared_ptr<Request> request) { ready_.push_back(std::move(request)); }
  // Posts what was added; the engine calls it at the end of a turn (EngineOptions::after_turn).
  void Flush();

 private:
  WorkPool* pool_;
  std::vector<std::shared_ptr<Request>> ready_;
};

}  // namespace tessera::server
