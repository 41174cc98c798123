#include "kernels/cuda/upload_ring.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_memory.h"

namespace tessera::kernels::cuda {
namespace {

// Pinning all of them is part of the first load; each is still far beyond a copy's own cost.
constexpr uint64_t kChunkBytes = 4 << 20;
// One core fills pinned memory at a tenth of what the link takes.
constexpr unsigned kMaxLanes = 12;
// What waits keeps its source in memory.
constexpr uint64_t kMaxQueuedBytes = uint64_t{512} << 20;
constexpr uint64_t kLinkTrialBytes = uint64_t{2} << 30;
constexpr int kLinkTrials = 3;

}  // namespace

UploadRing::Job::~Job() {
  if (file >= 0) (void)close(file);
}

UploadRing::UploadRing(int device) : device_(device) {
  const unsigned count = std::clamp(std::thread::hardware_concurrency(), 1u, kMaxLanes);
  busy_ = static_cast<int>(count);
  for (unsigned i = 0; i < count; ++i) {
    auto& lane = *lanes_.emplace_back(std::make_unique<Lane>());
    lane.thread = std::thread([this, &lane] { Run(lane); });
  }
}

Status UploadRing::Prepare(Lane& lane) {
  TESSERA_RETURN_IF_ERROR(StatusOf(cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking),
                                   "creating a stream"));
  for (Chunk& chunk : lane.chunks) {
    TESSERA_ASSIGN_OR_RETURN(chunk.pinned, AllocatePinned(kChunkBytes, "upload ring"));
    TESSERA_RETURN_IF_ERROR(
        StatusOf(cudaEventCreateWithFlags(&chunk.copied, cudaEventDisableTiming), "an event"));
  }
  return absl::OkStatus();
}

UploadRing::~UploadRing() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    if (lane->thread.joinable()) lane->thread.join();
    if (lane->stream != nullptr) (void)cudaStreamSynchronize(lane->stream);
    for (Chunk& chunk : lane->chunks) {
      if (chunk.copied != nullptr) (void)cudaEventDestroy(chunk.copied);
    }
    if (lane->stream != nullptr) (void)cudaStreamDestroy(lane->stream);
  }
}

Status UploadRing::Add(HostBytes from, std::byte* to, std::shared_ptr<const void> target) {
  const uint64_t bytes = from.bytes.size();
  if (bytes == 0) return absl::OkStatus();
  int file = -1;
  if (!from.file.empty()) {
    file = open(from.file.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", from.file));
  }
  auto job = std::make_shared<Job>(std::move(from), file, to, std::move(target));
  {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return queued_bytes_ < kMaxQueuedBytes; });
    queued_bytes_ += bytes;
    queue_.push_back(std::move(job));
  }
  work_.notify_all();
  return absl::OkStatus();
}

Status UploadRing::Wait() {
  const DeviceScope scope(device_);
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] { return queue_.empty() && busy_ == 0; });
  const cudaError_t error = SynchronizeLanes();
  if (error_.ok()) error_ = StatusOf(error, "a copy to the device");
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    for (Chunk& chunk : lane->chunks) chunk.target.reset();
  }
  if (error_.ok()) arrived_bytes_ += std::exchange(sent_bytes_, 0);
  return error_;
}

uint64_t UploadRing::arrived_bytes() const {
  const std::lock_guard lock(mutex_);
  return arrived_bytes_;
}

uint64_t UploadRing::ring_bytes() const { return lanes_.size() * 2 * kChunkBytes; }

void UploadRing::Run(Lane& lane) {
  const DeviceScope scope(device_);
  const Status prepared = Prepare(lane);
  std::unique_lock lock(mutex_);
  if (error_.ok()) error_ = prepared;
  --busy_;
  while (true) {
    if (queue_.empty() && busy_ == 0) idle_.notify_all();
    work_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Piece piece = TakePiece();
    const uint64_t bytes = piece.bytes;
    const bool lost = !error_.ok();
    ++busy_;
    lock.unlock();
    room_.notify_all();
    const Status sent = lost ? absl::OkStatus() : Send(lane, std::move(piece));
    piece = Piece();
    lock.lock();
    --busy_;
    if (sent.ok() && !lost) sent_bytes_ += bytes;
    if (error_.ok()) error_ = sent;
  }
}

UploadRing::Piece UploadRing::TakePiece() {
  const std::shared_ptr<Job> job = queue_.front();
  const uint64_t begin = job->begun;
  const uint64_t bytes = std::min<uint64_t>(kChunkBytes, job->from.bytes.size() - begin);
  job->begun += bytes;
  queued_bytes_ -= bytes;
  if (job->begun == job->from.bytes.size()) queue_.pop_front();
  return {job, begin, bytes};
}

Status UploadRing::Send(Lane& lane, Piece piece) {
  Chunk& chunk = lane.chunks[lane.turn];
  lane.turn ^= 1;
  const char* const what = "a copy to the device";
  TESSERA_RETURN_IF_ERROR(StatusOf(cudaEventSynchronize(chunk.copied), what));
  const Job& job = *piece.job;
  chunk.target = job.target;
  TESSERA_RETURN_IF_ERROR(Fill(job, piece.begin, {chunk.pinned->data(), piece.bytes}));
  TESSERA_RETURN_IF_ERROR(
      StatusOf(cudaMemcpyAsync(job.to + piece.begin, chunk.pinned->data(), piece.bytes,
                               cudaMemcpyHostToDevice, lane.stream),
               what));
  return StatusOf(cudaEventRecord(chunk.copied, lane.stream), what);
}

Status UploadRing::Fill(const Job& job, uint64_t begin, std::span<std::byte> to) {
  if (job.file < 0) {
    std::memcpy(to.data(), job.from.bytes.data() + begin, to.size());
    return absl::OkStatus();
  }
  for (uint64_t done = 0; done < to.size();) {
    const ssize_t got =
        pread(job.file, to.data() + done, to.size() - done, static_cast<off_t>(begin + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return Error(
          absl::StatusCode::kDataLoss,
          {.what = "a weight could not be read to its end",
           .where = job.from.file,
           .why = got < 0 ? std::strerror(errno) : absl::StrCat("it ends at byte ", begin + done),
           .fix = "run `tessera zoo verify`, mend the disk or the file, and start again"});
    }
    done += static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

cudaError_t UploadRing::SynchronizeLanes() {
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    const cudaError_t error = cudaStreamSynchronize(lane->stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t UploadRing::CopyRing(std::byte* to) const {
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    for (const Chunk& chunk : lane->chunks) {
      const cudaError_t error = cudaMemcpyAsync(to, chunk.pinned->data(), kChunkBytes,
                                                cudaMemcpyHostToDevice, lane->stream);
      if (error != cudaSuccess) return error;
      to += kChunkBytes;
    }
  }
  return cudaSuccess;
}

StatusOr<double> UploadRing::LinkRate(std::byte* to) {
  TESSERA_RETURN_IF_ERROR(Wait());
  const DeviceScope scope(device_);
  const std::lock_guard lock(mutex_);
  double best = 0;
  for (int trial = 0; trial < kLinkTrials; ++trial) {
    const auto start = std::chrono::steady_clock::now();
    uint64_t bytes = 0;
    while (bytes < kLinkTrialBytes) {
      TESSERA_RETURN_IF_ERROR(StatusOf(CopyRing(to), "a copy to the device"));
      bytes += ring_bytes();
    }
    TESSERA_RETURN_IF_ERROR(StatusOf(SynchronizeLanes(), "a copy to the device"));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(bytes) / took.count());
  }
  return best;
}

}  // namespace tessera::kernels::cuda
