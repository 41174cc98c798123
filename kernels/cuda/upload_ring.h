// Host bytes on their way to a device: lanes of pinned memory, each filled by a thread of its own
// and emptied by a stream, so that reading the next bytes and sending the last ones overlap, also
// from one weight to the next.
#pragma once

#include <cuda_runtime_api.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "config/foundation/status.h"
#include "kernels/memory.h"

namespace tessera::kernels::cuda {

// Thread-safe. Lanes pin their memory by themselves, while the maker goes on.
class UploadRing {
 public:
  explicit UploadRing(int device);
  ~UploadRing();
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;

  // Sends `from` to `to`, in order of calls; waits while much is queued. Its keeper lives while the
  // bytes are read, `target` until they are there; null where the caller waits. NOT_FOUND and such
  // when its file cannot be opened.
  [[nodiscard]] Status Add(HostBytes from, std::byte* to, std::shared_ptr<const void> target);
  // Waits until all that was added is there. After a failure that failure, always: UNAVAILABLE of a
  // copy, DATA_LOSS of a file, RESOURCE_EXHAUSTED when the host pins no more.
  [[nodiscard]] Status Wait();

  // Of copies that a Wait has seen end.
  [[nodiscard]] uint64_t arrived_bytes() const;
  [[nodiscard]] uint64_t ring_bytes() const;
  // Bytes a second of copies from the ring as it is filled now to `to`, which has ring_bytes().
  [[nodiscard]] StatusOr<double> LinkRate(std::byte* to);

 private:
  struct Job {
    Job(HostBytes bytes, int descriptor, std::byte* device, std::shared_ptr<const void> keeper)
        : from(std::move(bytes)), file(descriptor), to(device), target(std::move(keeper)) {}
    ~Job();
    Job(const Job&) = delete;
    Job& operator=(const Job&) = delete;

    const HostBytes from;
    const int file;  // descriptor; -1: none
    std::byte* const to;
    const std::shared_ptr<const void> target;
    uint64_t begun = 0;
  };
  struct Piece {
    std::shared_ptr<Job> job;
    uint64_t begin = 0;
    uint64_t bytes = 0;
  };
  struct Chunk {
    std::shared_ptr<Buffer> pinned;
    cudaEvent_t copied = nullptr;
    std::shared_ptr<const void> target;  // of the copy that `copied` follows
  };
  struct Lane {
    Chunk chunks[2];
    cudaStream_t stream = nullptr;
    int turn = 0;
    std::thread thread;
  };

  void Run(Lane& lane);
  static Status Prepare(Lane& lane);
  [[nodiscard]] Piece TakePiece();
  static Status Send(Lane& lane, Piece piece);
  static Status Fill(const Job& job, uint64_t begin, std::span<std::byte> to);
  [[nodiscard]] cudaError_t CopyRing(std::byte* to) const;
  [[nodiscard]] cudaError_t SynchronizeLanes();

  const int device_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  mutable std::mutex mutex_;  // of everything below, and of idle lanes
  std::condition_variable work_, room_, idle_;
  std::deque<std::shared_ptr<Job>> queue_;
  uint64_t queued_bytes_ = 0;  // not yet taken by a lane
  uint64_t sent_bytes_ = 0;    // since the last Wait
  uint64_t arrived_bytes_ = 0;
  int busy_ = 0;  // lanes that prepare themselves or have a piece
  bool stopping_ = false;
  Status error_;
};

}  // namespace tessera::kernels::cuda
