// What a step hands to its kernels, or they to the host: values that have an address on both sides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "config/foundation/check.h"
#include "kernels/memory.h"

namespace tessera::kernels {

// One array, as the host and as kernels see it. The same address where they share memory.
template <typename T>
struct Mirrored {
  T* host = nullptr;
  T* device = nullptr;
};

// Hands out pieces of two regions of equal size in step: the same calls give the same offsets,
// which is what recorded launches rely on. Made by ExecContext.
class StepArena {
 public:
  StepArena() = default;
  StepArena(std::shared_ptr<Buffer> host, std::shared_ptr<Buffer> device)
      : host_(std::move(host)), device_(std::move(device)) {}

  // 64-byte aligned. The arena must have room: it is sized for the largest step.
  template <typename T>
  [[nodiscard]] Mirrored<T> Take(uint64_t count) {
    const uint64_t at = used_;
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    TESSERA_CHECK(used_ <= host_->size());
    return {.host = reinterpret_cast<T*>(host_->data() + at),
            .device = reinterpret_cast<T*>(device_->data() + at)};
  }
  // Bytes that Take uses for `count` of T.
  template <typename T>
  [[nodiscard]] static constexpr uint64_t BytesFor(uint64_t count) {
    return (count * sizeof(T) + 63) / 64 * 64;
  }

  void Reset() { used_ = published_ = 0; }
  [[nodiscard]] uint64_t used() const { return used_; }
  [[nodiscard]] uint64_t published() const { return published_; }
  void set_published(uint64_t bytes) { published_ = bytes; }
  [[nodiscard]] std::byte* host() const { return host_->data(); }
  [[nodiscard]] std::byte* device() const { return device_->data(); }

 private:
  std::shared_ptr<Buffer> host_;
  std::shared_ptr<Buffer> device_;
  uint64_t used_ = 0;
  uint64_t published_ = 0;  // what kernels may read
};

}  // namespace tessera::kernels
