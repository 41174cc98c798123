#include "kernels/cuda/upload_ring.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "kernels/cuda/device.h"
#include "kernels/cuda/device_memory.h"

namespace tessera::kernels::cuda {
namespace {

// Pinning all of them is part of the first load; each is still far beyond a copy's own cost.
constexpr uint64_t kChunkBytes = 4 << 20;
// One core fills pinned memory at a fifth of what the link takes.
constexpr unsigned kMaxLanes = 8;
// What waits keeps its source in memory.
constexpr uint64_t kMaxQueuedBytes = uint64_t{512} << 20;
constexpr uint64_t kLinkTrialBytes = uint64_t{2} << 30;
constexpr int kLinkTrials = 3;

}  // namespace

StatusOr<std::unique_ptr<UploadRing>> UploadRing::Create(int device) {
  auto ring = std::unique_ptr<UploadRing>(new UploadRing(device));
  const unsigned count = std::clamp(std::thread::hardware_concurrency(), 1u, kMaxLanes);
  for (unsigned i = 0; i < count; ++i) {
    auto& lane = *ring->lanes_.emplace_back(std::make_unique<Lane>());
    for (Chunk& chunk : lane.chunks) {
      TESSERA_ASSIGN_OR_RETURN(chunk.pinned, AllocatePinned(kChunkBytes, "upload ring"));
      TESSERA_RETURN_IF_ERROR(
          StatusOf(cudaEventCreateWithFlags(&chunk.copied, cudaEventDisableTiming), "an event"));
    }
    TESSERA_RETURN_IF_ERROR(StatusOf(cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking),
                                     "creating a stream"));
  }
  for (const std::unique_ptr<Lane>& lane : ring->lanes_) {
    lane->thread = std::thread([raw = ring.get(), &lane = *lane] { raw->Run(lane); });
  }
  return ring;
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

void UploadRing::Add(std::span<const std::byte> from, std::shared_ptr<const void> source,
                     std::byte* to, std::shared_ptr<const void> target) {
  if (from.empty()) return;
  auto job = std::make_shared<Job>(Job{from, std::move(source), to, std::move(target)});
  {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return queued_bytes_ < kMaxQueuedBytes; });
    queued_bytes_ += from.size();
    queue_.push_back(std::move(job));
  }
  work_.notify_all();
}

Status UploadRing::Wait() {
  const DeviceScope scope(device_);
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] { return queue_.empty() && busy_ == 0; });
  const cudaError_t error = SynchronizeLanes();
  if (error_ == cudaSuccess) error_ = error;
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    for (Chunk& chunk : lane->chunks) chunk.target.reset();
  }
  if (error_ == cudaSuccess) arrived_bytes_ += std::exchange(sent_bytes_, 0);
  return StatusOf(error_, "a copy to the device");
}

uint64_t UploadRing::arrived_bytes() const {
  const std::lock_guard lock(mutex_);
  return arrived_bytes_;
}

uint64_t UploadRing::ring_bytes() const { return lanes_.size() * 2 * kChunkBytes; }

void UploadRing::Run(Lane& lane) {
  const DeviceScope scope(device_);
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Piece piece = TakePiece();
    const uint64_t bytes = piece.bytes;
    const bool lost = error_ != cudaSuccess;
    ++busy_;
    lock.unlock();
    room_.notify_all();
    const cudaError_t error = lost ? cudaSuccess : Send(lane, std::move(piece));
    piece = Piece();
    lock.lock();
    --busy_;
    if (error == cudaSuccess && !lost) sent_bytes_ += bytes;
    if (error_ == cudaSuccess) error_ = error;
    if (queue_.empty() && busy_ == 0) idle_.notify_all();
  }
}

UploadRing::Piece UploadRing::TakePiece() {
  const std::shared_ptr<Job> job = queue_.front();
  const uint64_t begin = job->begun;
  const uint64_t bytes = std::min<uint64_t>(kChunkBytes, job->from.size() - begin);
  job->begun += bytes;
  queued_bytes_ -= bytes;
  if (job->begun == job->from.size()) queue_.pop_front();
  return {job, begin, bytes};
}

cudaError_t UploadRing::Send(Lane& lane, Piece piece) {
  Chunk& chunk = lane.chunks[lane.turn];
  lane.turn ^= 1;
  cudaError_t error = cudaEventSynchronize(chunk.copied);
  if (error != cudaSuccess) return error;
  const Job& job = *piece.job;
  chunk.target = job.target;
  std::memcpy(chunk.pinned->data(), job.from.data() + piece.begin, piece.bytes);
  error = cudaMemcpyAsync(job.to + piece.begin, chunk.pinned->data(), piece.bytes,
                          cudaMemcpyHostToDevice, lane.stream);
  return error == cudaSuccess ? cudaEventRecord(chunk.copied, lane.stream) : error;
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
