// Memory that a backend's kernels read and write: the host's own, or a device's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::kernels {

// A piece of it, zeroed when it is made; given back when its last holder goes.
class Buffer {
 public:
  virtual ~Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  // At least 64-byte aligned; an address for kernels, and for the host only where the memory is
  // host_addressable().
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] uint64_t size() const { return size_; }

 protected:
  Buffer(std::byte* data, uint64_t size) : data_(data), size_(size) {}

 private:
  std::byte* data_;
  uint64_t size_;
};

// Bytes of the host on their way elsewhere.
struct HostBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> keeper;  // keeps them
  // A file that nobody changes and that begins with them; empty where there is none. Reading it
  // costs less than the faults of a mapping that is touched once.
  std::string file;
};

// Thread-safe.
class Memory {
 public:
  virtual ~Memory() = default;
  // `purpose` names the piece in the error and in the memory plan ("KV cache"). RESOURCE_EXHAUSTED
  // with the figures when there is not enough.
  [[nodiscard]] virtual StatusOr<std::shared_ptr<Buffer>> Allocate(uint64_t bytes,
                                                                   absl::string_view purpose) = 0;
  [[nodiscard]] virtual bool host_addressable() const = 0;
  // Both wait until the bytes are there. UNAVAILABLE when the device is lost.
  [[nodiscard]] virtual Status Write(std::span<const std::byte> from, std::byte* to) = 0;
  [[nodiscard]] virtual Status Read(const std::byte* from, std::span<std::byte> to) = 0;
  // A Write that may still be under way when it returns, until Settle. `target` keeps `to` as long
  // as it is needed. NOT_FOUND and such when a file cannot be opened.
  [[nodiscard]] virtual Status WriteLater(HostBytes from, std::byte* to,
                                          std::shared_ptr<const Buffer> target) {
    return Write(from.bytes, to);
  }
  // Waits for what WriteLater began, by whichever thread. UNAVAILABLE when the device is lost,
  // DATA_LOSS when a file could not be read to its end; either from then on always, since nobody
  // knows what is there.
  [[nodiscard]] virtual Status Settle() { return absl::OkStatus(); }
  // Bytes that could still be allocated; what the machine reports, not a promise.
  [[nodiscard]] virtual uint64_t free_bytes() const = 0;
  // What Write has brought over a link to a device so far, counted when it is there; 0 where the
  // host's own memory is written.
  [[nodiscard]] virtual uint64_t uploaded_bytes() const { return 0; }
  // Bytes a second that this link takes from host memory that is pinned and filled, in the pieces
  // that Write makes of large weights: their limit. Measured now, in some tenths of a second; 0
  // where there is no link. Errors as of Allocate and Write.
  [[nodiscard]] virtual StatusOr<double> MeasureLink() { return 0.0; }
  // What was taken for which purpose ("weights 15316.0 MiB, KV cache ..."); empty where nobody
  // counts.
  [[nodiscard]] virtual std::string Describe() const { return ""; }
};

// The host's memory; large pieces are taken as they are first written.
[[nodiscard]] Memory& HostMemory();

}  // namespace tessera::kernels
