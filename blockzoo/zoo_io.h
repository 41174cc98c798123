// File operations of the zoo: whole files that appear at once, and errors that name the path.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::blockzoo {

// A file descriptor closed by its destructor.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.Release()) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept;
  ~OwnedFd();
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  int Release();

 private:
  int fd_ = -1;
};

// "WHAT PATH" with the system's reason. ENOENT is NOT_FOUND, EACCES, EPERM and EROFS are
// PERMISSION_DENIED, ENOSPC, EDQUOT and EFBIG are RESOURCE_EXHAUSTED with the fix, the rest
// UNAVAILABLE.
[[nodiscard]] Status SystemError(absl::string_view what, const std::string& path, int error);

// Called before each change to the disk with what is about to happen ("write", "fsync", "rename",
// …); an error is taken as that operation's failure. The injected world of the zoo's tests.
using DiskHook = std::function<Status(absl::string_view operation, const std::string& path)>;

// How a zoo writes. Copyable.
struct DiskWriter {
  DiskHook hook;
  size_t chunk_bytes = 4 << 20;
  uint64_t reserve_bytes = 0;  // free space of the file system that a write leaves

  [[nodiscard]] Status Before(absl::string_view operation, const std::string& path) const;
  [[nodiscard]] Status WriteAll(int fd, std::span<const std::byte> bytes,
                                const std::string& path) const;
  // RESOURCE_EXHAUSTED when writing `bytes` under `directory` would leave less than the reserve.
  [[nodiscard]] Status CheckSpace(const std::string& directory, uint64_t bytes) const;
  [[nodiscard]] Status Sync(int fd, const std::string& path) const;
  [[nodiscard]] Status SyncDirectory(const std::string& directory) const;
  [[nodiscard]] Status Rename(const std::string& from, const std::string& to) const;
  // OK when it exists already.
  [[nodiscard]] Status MakeDirectory(const std::string& path) const;
  [[nodiscard]] Status Unlink(const std::string& path) const;
};

// A file under construction in `tmp/`. It holds a lock while it lives, so that cleaning tells it
// from what a dead process left. Removed by its destructor unless published.
class TempFile {
 public:
  [[nodiscard]] static StatusOr<TempFile> Create(const DiskWriter& disk,
                                                 const std::string& directory);
  TempFile(TempFile&& other) noexcept = default;
  TempFile& operator=(TempFile&& other) = delete;
  ~TempFile();

  [[nodiscard]] Status Append(std::span<const std::byte> bytes);
  // Lets the disk begin, so that syncing a batch of files afterwards waits once rather than for
  // each.
  void StartWriteback() const;
  [[nodiscard]] Status Sync();
  // Renames to `path`; the caller syncs the directory. The lock is kept until destruction.
  [[nodiscard]] Status Publish(const std::string& path);
  // After `Publish`: the descriptor that holds the lock.
  [[nodiscard]] OwnedFd TakeLock() { return std::move(fd_); }

 private:
  TempFile(const DiskWriter& disk, OwnedFd fd, std::string path)
      : disk_(&disk), fd_(std::move(fd)), path_(std::move(path)) {}

  const DiskWriter* disk_;
  OwnedFd fd_;
  std::string path_;
  bool published_ = false;
};

// Removes what dead processes left in `directory`.
[[nodiscard]] Status CleanTemporaries(const DiskWriter& disk, const std::string& directory);

// The whole text of a file. INVALID_ARGUMENT when it is larger than `limit`.
[[nodiscard]] StatusOr<std::string> ReadWholeFile(const std::string& path, uint64_t limit);
// Writes a small file so that either the old or the whole new text is seen, durably.
[[nodiscard]] Status ReplaceFile(const DiskWriter& disk, const std::string& tmp_directory,
                                 const std::string& path, absl::string_view text);

enum class PathKind : uint8_t { kMissing, kFile, kDirectory, kOther };
[[nodiscard]] PathKind KindOfPath(const std::string& path);
// NOT_FOUND when it is missing.
[[nodiscard]] StatusOr<uint64_t> FileSize(const std::string& path);
// Sorted names without "." and ".."; empty when the directory is missing.
[[nodiscard]] StatusOr<std::vector<std::string>> ListDirectory(const std::string& path);
[[nodiscard]] std::span<const std::byte> BytesOf(absl::string_view text);
// "93.8 MiB", "512 B".
[[nodiscard]] std::string BytesText(uint64_t bytes);

}  // namespace tessera::blockzoo
