#include "kernels/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace tessera::kernels {
namespace {

// Smaller pieces would waste most of a mapping's last page.
constexpr uint64_t kMapFrom = 1 << 20;

class HeapBuffer final : public Buffer {
 public:
  HeapBuffer(std::byte* data, uint64_t size) : Buffer(data, size) {}
  ~HeapBuffer() override { std::free(data()); }
};

class MappedBuffer final : public Buffer {
 public:
  MappedBuffer(std::byte* data, uint64_t size) : Buffer(data, size) {}
  ~MappedBuffer() override { munmap(data(), size()); }
};

class ProcessMemory final : public Memory {
 public:
  StatusOr<std::shared_ptr<Buffer>> Allocate(uint64_t bytes, absl::string_view purpose) override {
    if (bytes < kMapFrom) {
      const uint64_t rounded = (bytes + 63) / 64 * 64 + 64;
      auto* data = static_cast<std::byte*>(std::aligned_alloc(64, rounded));
      if (data == nullptr) return Exhausted(bytes, purpose, ENOMEM);
      std::memset(data, 0, rounded);
      return std::shared_ptr<Buffer>(std::make_shared<HeapBuffer>(data, bytes));
    }
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_NORESERVE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return Exhausted(bytes, purpose, errno);
    // Attention walks pages all over the cache: few translations where the system grants large
    // ones.
    madvise(data, bytes, MADV_HUGEPAGE);
    return std::shared_ptr<Buffer>(
        std::make_shared<MappedBuffer>(static_cast<std::byte*>(data), bytes));
  }

  bool host_addressable() const override { return true; }

  Status Write(std::span<const std::byte> from, std::byte* to) override {
    std::memcpy(to, from.data(), from.size());
    return absl::OkStatus();
  }
  Status Read(const std::byte* from, std::span<std::byte> to) override {
    std::memcpy(to.data(), from, to.size());
    return absl::OkStatus();
  }

  uint64_t free_bytes() const override {
    const long pages = sysconf(_SC_AVPHYS_PAGES);
    const long page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page) : 0;
  }

 private:
  static Status Exhausted(uint64_t bytes, absl::string_view purpose, int error) {
    return Error(absl::StatusCode::kResourceExhausted,
                 {.what = absl::StrCat("cannot reserve ", bytes, " bytes for the ", purpose),
                  .why = std::strerror(error),
                  .fix = "give it less memory or raise the limit on address space"});
  }
};

}  // namespace

Memory& HostMemory() {
  static ProcessMemory memory;
  return memory;
}

}  // namespace tessera::kernels
