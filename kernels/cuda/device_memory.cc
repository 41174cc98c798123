#include "kernels/cuda/device_memory.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace tessera::kernels::cuda {
namespace {

// Writes below this are one plain copy.
constexpr uint64_t kRingFrom = 8 << 20;
constexpr uint64_t kChunkBytes = 8 << 20;
// One core fills pinned memory at a fifth of what the link takes.
constexpr unsigned kMaxWriters = 8;
constexpr uint64_t kLinkTrialBytes = uint64_t{2} << 30;
constexpr int kLinkTrials = 3;

class PinnedBuffer final : public Buffer {
 public:
  PinnedBuffer(void* data, uint64_t size) : Buffer(static_cast<std::byte*>(data), size) {}
  ~PinnedBuffer() override { (void)cudaFreeHost(data()); }
};

double MiB(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

StatusOr<std::shared_ptr<Buffer>> AllocatePinned(uint64_t bytes, absl::string_view purpose) {
  void* data = nullptr;
  const uint64_t rounded = std::max<uint64_t>(bytes, 64);
  const cudaError_t error = cudaHostAlloc(&data, rounded, cudaHostAllocDefault);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    return Error(
        absl::StatusCode::kResourceExhausted,
        {.what = absl::StrCat("cannot pin ", rounded, " bytes of host memory for the ", purpose),
         .why = cudaGetErrorString(error),
         .fix = "free host memory or raise the limit on locked memory"});
  }
  std::memset(data, 0, rounded);
  return std::shared_ptr<Buffer>(std::make_shared<PinnedBuffer>(data, bytes));
}

struct DeviceMemory::Usage {
  std::mutex mutex;
  std::map<std::string, uint64_t> bytes;

  void Add(const std::string& purpose, uint64_t count) {
    const std::lock_guard lock(mutex);
    bytes[purpose] += count;
  }
  void Remove(const std::string& purpose, uint64_t count) {
    const std::lock_guard lock(mutex);
    bytes[purpose] -= count;
  }
};

class DeviceMemory::Piece final : public Buffer {
 public:
  Piece(void* data, uint64_t size, int device, std::shared_ptr<Usage> usage, std::string purpose)
      : Buffer(static_cast<std::byte*>(data), size),
        device_(device),
        usage_(std::move(usage)),
        purpose_(std::move(purpose)) {
    usage_->Add(purpose_, size);
  }
  ~Piece() override {
    const DeviceScope scope(device_);
    (void)cudaFree(data());
    usage_->Remove(purpose_, size());
  }

 private:
  int device_;
  std::shared_ptr<Usage> usage_;
  std::string purpose_;
};

// Copies host bytes to the device through pinned chunks: some threads each fill their own two.
class DeviceMemory::Uploader {
 public:
  static StatusOr<std::unique_ptr<Uploader>> Create(int device) {
    auto uploader = std::unique_ptr<Uploader>(new Uploader(device));
    const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1u, kMaxWriters);
    for (unsigned i = 0; i < threads; ++i) {
      auto& lane = *uploader->lanes_.emplace_back(std::make_unique<Lane>());
      for (Chunk& chunk : lane.chunks) {
        TESSERA_ASSIGN_OR_RETURN(chunk.pinned, AllocatePinned(kChunkBytes, "upload ring"));
        TESSERA_RETURN_IF_ERROR(
            StatusOf(cudaEventCreateWithFlags(&chunk.copied, cudaEventDisableTiming), "an event"));
      }
      TESSERA_RETURN_IF_ERROR(StatusOf(
          cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking), "creating a stream"));
    }
    return uploader;
  }
  ~Uploader() {
    for (const std::unique_ptr<Lane>& lane : lanes_) {
      for (Chunk& chunk : lane->chunks) {
        if (chunk.copied != nullptr) (void)cudaEventDestroy(chunk.copied);
      }
      if (lane->stream != nullptr) (void)cudaStreamDestroy(lane->stream);
    }
  }

  [[nodiscard]] uint64_t ring_bytes() const { return lanes_.size() * 2 * kChunkBytes; }

  // Bytes a second of copies from the ring as it is filled now to `to`, which has ring_bytes().
  StatusOr<double> LinkRate(std::byte* to) {
    double best = 0;
    for (int trial = 0; trial < kLinkTrials; ++trial) {
      const auto start = std::chrono::steady_clock::now();
      uint64_t bytes = 0;
      while (bytes < kLinkTrialBytes) {
        TESSERA_RETURN_IF_ERROR(StatusOf(CopyRing(to), "a copy to the device"));
        bytes += ring_bytes();
      }
      for (const std::unique_ptr<Lane>& lane : lanes_) {
        TESSERA_RETURN_IF_ERROR(
            StatusOf(cudaStreamSynchronize(lane->stream), "a copy to the device"));
      }
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      best = std::max(best, static_cast<double>(bytes) / took.count());
    }
    return best;
  }

  Status Copy(std::span<const std::byte> from, std::byte* to) {
    std::atomic<uint64_t> next{0};
    std::vector<std::thread> threads;
    for (size_t i = 1; i < lanes_.size(); ++i) {
      threads.emplace_back([&, i] { lanes_[i]->error = Fill(*lanes_[i], from, to, next); });
    }
    lanes_[0]->error = Fill(*lanes_[0], from, to, next);
    for (std::thread& thread : threads) thread.join();
    for (const std::unique_ptr<Lane>& lane : lanes_) {
      TESSERA_RETURN_IF_ERROR(StatusOf(lane->error, "a copy to the device"));
    }
    return absl::OkStatus();
  }

 private:
  struct Chunk {
    std::shared_ptr<Buffer> pinned;
    cudaEvent_t copied = nullptr;
  };
  struct Lane {
    Chunk chunks[2];
    cudaStream_t stream = nullptr;
    cudaError_t error = cudaSuccess;
  };

  explicit Uploader(int device) : device_(device) {}

  cudaError_t CopyRing(std::byte* to) const {
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

  cudaError_t Fill(Lane& lane, std::span<const std::byte> from, std::byte* to,
                   std::atomic<uint64_t>& next) const {
    const DeviceScope scope(device_);
    for (int turn = 0;; turn ^= 1) {
      const uint64_t at = next.fetch_add(kChunkBytes);
      if (at >= from.size()) break;
      const uint64_t bytes = std::min<uint64_t>(kChunkBytes, from.size() - at);
      Chunk& chunk = lane.chunks[turn];
      cudaError_t error = cudaEventSynchronize(chunk.copied);
      if (error != cudaSuccess) return error;
      std::memcpy(chunk.pinned->data(), from.data() + at, bytes);
      error = cudaMemcpyAsync(to + at, chunk.pinned->data(), bytes, cudaMemcpyHostToDevice,
                              lane.stream);
      if (error == cudaSuccess) error = cudaEventRecord(chunk.copied, lane.stream);
      if (error != cudaSuccess) return error;
    }
    return cudaStreamSynchronize(lane.stream);
  }

  int device_;
  std::vector<std::unique_ptr<Lane>> lanes_;
};

DeviceMemory::DeviceMemory(const DeviceInfo& device)
    : device_(device), usage_(std::make_shared<Usage>()) {}

DeviceMemory::~DeviceMemory() = default;

StatusOr<std::shared_ptr<Buffer>> DeviceMemory::Allocate(uint64_t bytes,
                                                         absl::string_view purpose) {
  const DeviceScope scope(device_.index);
  void* data = nullptr;
  const uint64_t rounded = std::max<uint64_t>(bytes, 256);
  cudaError_t error = cudaMalloc(&data, rounded);
  if (error == cudaSuccess) error = cudaMemset(data, 0, rounded);
  // The memset of a legacy stream does not hold back streams that do not wait for it.
  if (error == cudaSuccess) error = cudaDeviceSynchronize();
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    if (data != nullptr) (void)cudaFree(data);
    if (error != cudaErrorMemoryAllocation) return StatusOf(error, "allocating memory");
    return Error(absl::StatusCode::kResourceExhausted,
                 {.what = absl::StrFormat("cannot take %.1f MiB of device memory for the %s",
                                          MiB(rounded), std::string(purpose)),
                  .why = absl::StrFormat("%.1f MiB of %.1f are free; %s", MiB(free_bytes()),
                                         MiB(device_.memory_bytes), Describe()),
                  .fix = "give the cache less memory (engine.memory) or load fewer models"});
  }
  return std::shared_ptr<Buffer>(
      std::make_shared<Piece>(data, bytes, device_.index, usage_, std::string(purpose)));
}

Status DeviceMemory::Write(std::span<const std::byte> from, std::byte* to) {
  if (from.empty()) return absl::OkStatus();
  const DeviceScope scope(device_.index);
  if (from.size() < kRingFrom) {
    // cudaMemcpy may return before the copy has reached the device; other streams would not wait.
    TESSERA_RETURN_IF_ERROR(StatusOf(
        cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyHostToDevice, cudaStreamPerThread),
        "a copy to the device"));
    TESSERA_RETURN_IF_ERROR(
        StatusOf(cudaStreamSynchronize(cudaStreamPerThread), "a copy to the device"));
  } else {
    const std::lock_guard lock(upload_mutex_);
    TESSERA_ASSIGN_OR_RETURN(Uploader* const uploader, TheUploader());
    TESSERA_RETURN_IF_ERROR(uploader->Copy(from, to));
  }
  uploaded_ += from.size();
  return absl::OkStatus();
}

StatusOr<DeviceMemory::Uploader*> DeviceMemory::TheUploader() {
  if (uploader_ == nullptr) {
    TESSERA_ASSIGN_OR_RETURN(uploader_, Uploader::Create(device_.index));
  }
  return uploader_.get();
}

StatusOr<double> DeviceMemory::MeasureLink() {
  const DeviceScope scope(device_.index);
  const std::lock_guard lock(upload_mutex_);
  TESSERA_ASSIGN_OR_RETURN(Uploader* const uploader, TheUploader());
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<Buffer> target,
                           Allocate(uploader->ring_bytes(), "trial of the link"));
  return uploader->LinkRate(target->data());
}

Status DeviceMemory::Read(const std::byte* from, std::span<std::byte> to) {
  if (to.empty()) return absl::OkStatus();
  const DeviceScope scope(device_.index);
  return StatusOf(cudaMemcpy(to.data(), from, to.size(), cudaMemcpyDeviceToHost),
                  "a copy from the device");
}

uint64_t DeviceMemory::free_bytes() const {
  const DeviceScope scope(device_.index);
  size_t free = 0, total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? free : 0;
}

std::string DeviceMemory::Describe() const {
  const std::lock_guard lock(usage_->mutex);
  std::string text;
  for (const auto& [purpose, bytes] : usage_->bytes) {
    if (bytes == 0) continue;
    absl::StrAppendFormat(&text, "%s%s %.1f MiB", text.empty() ? "" : ", ", purpose, MiB(bytes));
  }
  return text;
}

}  // namespace tessera::kernels::cuda
