// Streams beside another one, for launches that do not need one another: what is launched on them
// between a fork and its join runs together, after what the stream had before and before what it
// gets next. Works the same while the stream is captured.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <vector>

#include "config/foundation/status.h"

namespace tessera::kernels::cuda {

// Of the device that was current when it was made. Not thread-safe.
class SideStreams {
 public:
  [[nodiscard]] static StatusOr<std::unique_ptr<SideStreams>> Create(int count);
  ~SideStreams();
  SideStreams(const SideStreams&) = delete;
  SideStreams& operator=(const SideStreams&) = delete;

  [[nodiscard]] int count() const { return static_cast<int>(sides_.size()); }
  [[nodiscard]] cudaStream_t stream(int side) const { return sides_[side].stream; }

  // The first `sides` streams follow what `stream` has.
  [[nodiscard]] cudaError_t Fork(cudaStream_t stream, int sides);
  // `stream` follows what the first `sides` streams have.
  [[nodiscard]] cudaError_t Join(cudaStream_t stream, int sides);

 private:
  struct Side {
    cudaStream_t stream = nullptr;
    cudaEvent_t done = nullptr;
  };
  SideStreams() = default;

  cudaEvent_t forked_ = nullptr;
  std::vector<Side> sides_;
};

}  // namespace tessera::kernels::cuda
