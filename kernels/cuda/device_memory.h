// A device's memory behind the Memory interface, and pinned memory of the host.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "kernels/cuda/device.h"
#include "kernels/cuda/upload_ring.h"
#include "kernels/memory.h"

namespace tessera::kernels::cuda {

// Host memory that the device copies from and to at full speed. RESOURCE_EXHAUSTED when the host
// grants no more.
[[nodiscard]] StatusOr<std::shared_ptr<Buffer>> AllocatePinned(uint64_t bytes,
                                                               absl::string_view purpose);

// Thread-safe.
class DeviceMemory final : public Memory {
 public:
  explicit DeviceMemory(const DeviceInfo& device);
  ~DeviceMemory() override;

  StatusOr<std::shared_ptr<Buffer>> Allocate(uint64_t bytes, absl::string_view purpose) override;
  bool host_addressable() const override { return false; }
  Status Write(std::span<const std::byte> from, std::byte* to) override;
  Status Read(const std::byte* from, std::span<std::byte> to) override;
  uint64_t free_bytes() const override;
  Status WriteLater(HostBytes from, std::byte* to, std::shared_ptr<const Buffer> target) override;
  Status Settle() override;
  uint64_t uploaded_bytes() const override;
  StatusOr<double> MeasureLink() override;
  std::string Describe() const override;

 private:
  struct Usage;
  class Piece;
  friend class Piece;

  DeviceInfo device_;
  std::shared_ptr<Usage> usage_;      // by purpose; pieces may outlive this object
  std::atomic<uint64_t> written_{0};  // without the ring
  UploadRing ring_;
};

}  // namespace tessera::kernels::cuda
