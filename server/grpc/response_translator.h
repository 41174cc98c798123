// Output as messages of tessera.v1. Only for sources that see protobuf.
#pragma once

#include <deque>

#include "server/core/collector.h"
#include "server/core/model_registry.h"
#include "server/core/output.h"
#include "tessera/v1/inference_service.pb.h"

namespace tessera::server {

// Appends one message an event, numbered on from `*seq`. The batch's error is left to the caller.
void AppendMessages(OutputBatch batch, uint64_t* seq, std::deque<v1::GenerateResponse>* messages);

// The same of a chat, with what its deltas have besides text.
void AppendMessages(OutputBatch batch, uint64_t* seq, std::deque<v1::ChatResponse>* messages);

void ToProto(const OutputToken& token, v1::Token* proto);
void ToProto(OutputDelta delta, v1::Delta* proto);
void ToProto(const OutputFinished& finished, v1::Finished* proto);
void ToProto(const CollectedOutput& output, v1::Continuation* proto);
void ToProto(const ModelInfo& info, v1::Model* proto);

}  // namespace tessera::server
