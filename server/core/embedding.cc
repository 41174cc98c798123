#include "server/core/embedding.h"

#include <algorithm>
#include <cmath>

namespace tessera::server {

std::vector<float> FinishEmbedding(std::vector<float> pooled, const EmbeddingSpec& spec) {
  if (spec.dimensions) pooled.resize(std::min<size_t>(pooled.size(), *spec.dimensions));
  if (spec.length == EmbeddingSpec::Length::kAsIs) return pooled;
  double squares = 0;
  for (const float value : pooled) squares += double{value} * value;
  if (squares == 0) return pooled;
  const double scale = 1 / std::sqrt(squares);
  for (float& value : pooled) value = static_cast<float>(value * scale);
  return pooled;
}

}  // namespace tessera::server
