// Locks between processes: flock on a file, released by death.
#pragma once

#include <chrono>
#include <string>

#include "blockzoo/zoo_io.h"
#include "config/foundation/status.h"

namespace tessera::blockzoo {

enum class LockKind : uint8_t { kShared, kExclusive };

// Held until destruction. Every FileLock opens the file anew, so that threads of one process
// exclude each other as processes do.
class FileLock {
 public:
  // Waits up to `wait`. UNAVAILABLE naming the holder when the lock stays busy. An exclusive holder
  // writes `purpose` and its process id into the file for that message.
  [[nodiscard]] static StatusOr<FileLock> Take(const std::string& path, LockKind kind,
                                               const std::string& purpose,
                                               std::chrono::milliseconds wait);

 private:
  explicit FileLock(OwnedFd fd) : fd_(std::move(fd)) {}
  OwnedFd fd_;
};

}  // namespace tessera::blockzoo
