#include "kernels/cuda/side_streams.h"

#include "kernels/cuda/device.h"

namespace tessera::kernels::cuda {

StatusOr<std::unique_ptr<SideStreams>> SideStreams::Create(int count) {
  auto made = std::unique_ptr<SideStreams>(new SideStreams);
  const auto make_event = [](cudaEvent_t& event) {
    return StatusOf(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  };
  TESSERA_RETURN_IF_ERROR(make_event(made->forked_));
  for (int i = 0; i < count; ++i) {
    Side& side = made->sides_.emplace_back();
    TESSERA_RETURN_IF_ERROR(StatusOf(cudaStreamCreateWithFlags(&side.stream, cudaStreamNonBlocking),
                                     "creating a stream"));
    TESSERA_RETURN_IF_ERROR(make_event(side.done));
  }
  return made;
}

SideStreams::~SideStreams() {
  for (const Side& side : sides_) {
    if (side.stream != nullptr) {
      (void)cudaStreamSynchronize(side.stream);
      (void)cudaStreamDestroy(side.stream);
    }
    if (side.done != nullptr) (void)cudaEventDestroy(side.done);
  }
  if (forked_ != nullptr) (void)cudaEventDestroy(forked_);
}

cudaError_t SideStreams::Fork(cudaStream_t stream, int sides) {
  cudaError_t error = cudaEventRecord(forked_, stream);
  for (int i = 0; i < sides && error == cudaSuccess; ++i) {
    error = cudaStreamWaitEvent(sides_[i].stream, forked_, 0);
  }
  return error;
}

cudaError_t SideStreams::Join(cudaStream_t stream, int sides) {
  cudaError_t error = cudaSuccess;
  for (int i = 0; i < sides && error == cudaSuccess; ++i) {
    error = cudaEventRecord(sides_[i].done, sides_[i].stream);
    if (error == cudaSuccess) error = cudaStreamWaitEvent(stream, sides_[i].done, 0);
  }
  return error;
}

}  // namespace tessera::kernels::cuda
