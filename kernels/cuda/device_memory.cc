#include "kernels/cuda/device_memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace tessera::kernels::cuda {
namespace {

// Writes below this are one plain copy.
constexpr uint64_t kRingFrom = 8 << 20;

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

DeviceMemory::DeviceMemory(const DeviceInfo& device)
    : device_(device), usage_(std::make_shared<Usage>()), ring_(device.index) {}

DeviceMemory::~DeviceMemory() = default;

StatusOr<std::shared_ptr<Buffer>> DeviceMemory::Allocate(uint64_t bytes,
                                                         absl::string_view purpose) {
  const DeviceScope scope(device_.index);
  void* data = nullptr;
  const uint64_t rounded = std::max<uint64_t>(bytes, 256);
  cudaError_t error = cudaMalloc(&data, rounded);
  // Waited for, as no other stream would; but not for uploads, which go on.
  if (error == cudaSuccess) error = cudaMemsetAsync(data, 0, rounded, cudaStreamPerThread);
  if (error == cudaSuccess) error = cudaStreamSynchronize(cudaStreamPerThread);
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
  TESSERA_RETURN_IF_ERROR(WriteLater({.bytes = from}, to, nullptr));
  return from.size() < kRingFrom ? absl::OkStatus() : Settle();
}

Status DeviceMemory::WriteLater(HostBytes later, std::byte* to,
                                std::shared_ptr<const Buffer> target) {
  const std::span<const std::byte> from = later.bytes;
  if (from.empty()) return absl::OkStatus();
  const DeviceScope scope(device_.index);
  if (from.size() >= kRingFrom) return ring_.Add(std::move(later), to, std::move(target));
  // cudaMemcpy may return before the copy has reached the device; other streams would not wait.
  TESSERA_RETURN_IF_ERROR(StatusOf(
      cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyHostToDevice, cudaStreamPerThread),
      "a copy to the device"));
  TESSERA_RETURN_IF_ERROR(
      StatusOf(cudaStreamSynchronize(cudaStreamPerThread), "a copy to the device"));
  written_ += from.size();
  return absl::OkStatus();
}

Status DeviceMemory::Settle() { return ring_.Wait(); }

uint64_t DeviceMemory::uploaded_bytes() const { return written_ + ring_.arrived_bytes(); }

StatusOr<double> DeviceMemory::MeasureLink() {
  const DeviceScope scope(device_.index);
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<Buffer> target,
                           Allocate(ring_.ring_bytes(), "trial of the link"));
  return ring_.LinkRate(target->data());
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
