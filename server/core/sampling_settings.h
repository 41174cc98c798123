// A spec's sampling and stopping as the engine takes them, with the model's defaults filled in.
#pragma once

#include "scheduler/request.h"
#include "server/core/generation_spec.h"
#include "server/core/loaded_model.h"

namespace tessera::server {

// `seed` stands in where the spec has none. Encodes bad words; errors are the tokenizer's.
[[nodiscard]] StatusOr<scheduler::SamplingSettings> MakeSampling(const LoadedModel& model,
                                                                 const SamplingSpec& sampling,
                                                                 uint64_t seed);
[[nodiscard]] scheduler::StoppingSettings MakeStopping(const LoadedModel& model,
                                                       const StoppingSpec& stopping,
                                                       TimePoint arrival, uint32_t max_tokens);

}  // namespace tessera::server
