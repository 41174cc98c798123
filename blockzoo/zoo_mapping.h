// Files mapped read-only: weights of the zoo and checkpoints under import.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "config/foundation/status.h"

namespace tessera::blockzoo {

// Immutable; unmapped by its destructor. An empty file has an empty span.
class MappedFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED or UNAVAILABLE with the path; INVALID_ARGUMENT when it is not a
  // regular file.
  [[nodiscard]] static StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  // `bytes` of zeroed anonymous memory, page-aligned; RESOURCE_EXHAUSTED when there is none.
  [[nodiscard]] static StatusOr<std::shared_ptr<MappedFile>> Anonymous(uint64_t bytes);

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Of an anonymous mapping only; a file's pages are read-only.
  [[nodiscard]] std::span<std::byte> writable() { return {data_, size_}; }

 private:
  MappedFile(std::byte* data, size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tessera::blockzoo
