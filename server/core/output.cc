#include "server/core/output.h"

namespace tessera::server {

bool OutputBatch::empty() const {
  return !started && !progress && prompt_tokens.empty() && embedding.empty() && deltas.empty() &&
         finished.empty() && !error;
}

bool OutputBatch::ends() const { return error || (!finished.empty() && finished.back().last); }

void OutputBatch::Clear() { *this = OutputBatch(); }

}  // namespace tessera::server
