// What a client asks of a prompt's final hidden states, and how they become its vector.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "scheduler/request.h"

namespace tessera::server {

struct EmbeddingSpec {
  scheduler::Pooling pooling = scheduler::Pooling::kLast;
  std::optional<uint32_t> dimensions;  // only the first this many; 1 to the model's width
  enum class Length : uint8_t { kAsIs, kOne } length = Length::kOne;  // Euclidean, after the cut
};

// Cuts and scales `pooled`. A vector of zeros stays one.
[[nodiscard]] std::vector<float> FinishEmbedding(std::vector<float> pooled,
                                                 const EmbeddingSpec& spec);

}  // namespace tessera::server
