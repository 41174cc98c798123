// Hands the streams that got output in one turn of the engine to the pool, together.
#pragma once

#include <memory>
#include <vector>

#include "scheduler/stream_mailbox.h"
#include "server/core/work_pool.h"

namespace tessera::server {

// EngineOptions::tell of a server: posts jobs that tell the readers of `ready`, and empties it. A
// step answers hundreds of streams: a job for each would take the pool's lock once a stream.
void PumpOutput(WorkPool& pool, std::vector<std::shared_ptr<scheduler::StreamMailbox>>& ready);

}  // namespace tessera::server
