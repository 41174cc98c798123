#include "blockzoo/zoo_io.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {

OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = other.Release();
  }
  return *this;
}

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) close(fd_);
}

int OwnedFd::Release() {
  const int fd = fd_;
  fd_ = -1;
  return fd;
}

Status SystemError(absl::string_view what, const std::string& path, int error) {
  ErrorParts parts{.what = absl::StrCat(what, " ", path), .why = std::strerror(error)};
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return Error(absl::StatusCode::kNotFound, parts);
    case EACCES:
    case EPERM:
    case EROFS:
      return Error(absl::StatusCode::kPermissionDenied, parts);
    case ENOSPC:
    case EDQUOT:
      parts.fix = "free space on that file system, then run the same command again: it continues";
      return Error(absl::StatusCode::kResourceExhausted, parts);
    case EFBIG:
      parts.fix = "raise the file size limit (ulimit -f), then run the same command again";
      return Error(absl::StatusCode::kResourceExhausted, parts);
    case EMFILE:
    case ENFILE:
      parts.fix = "raise the limit of open files (ulimit -n)";
      return Error(absl::StatusCode::kResourceExhausted, parts);
    default:
      return Error(absl::StatusCode::kUnavailable, parts);
  }
}

Status DiskWriter::Before(absl::string_view operation, const std::string& path) const {
  return hook ? hook(operation, path) : absl::OkStatus();
}

Status DiskWriter::WriteAll(int fd, std::span<const std::byte> bytes,
                            const std::string& path) const {
  while (!bytes.empty()) {
    TESSERA_RETURN_IF_ERROR(Before("write", path));
    const ssize_t written = write(fd, bytes.data(), std::min(bytes.size(), chunk_bytes));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return SystemError("cannot write", path, written == 0 ? ENOSPC : errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

Status DiskWriter::CheckSpace(const std::string& directory, uint64_t bytes) const {
  struct statvfs info;
  if (statvfs(directory.c_str(), &info) != 0) {
    return SystemError("cannot read the free space of", directory, errno);
  }
  const uint64_t free = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  if (bytes <= free && free - bytes >= reserve_bytes) return absl::OkStatus();
  return Error(absl::StatusCode::kResourceExhausted,
               {.what = "not enough free space for the zoo",
                .where = directory,
                .why = absl::StrCat(BytesText(bytes), " to write, ", BytesText(free), " free, ",
                                    BytesText(reserve_bytes), " kept free by store.reserve"),
                .fix = "free space, run `tessera zoo gc`, or lower store.reserve; then run the "
                       "same command again: it continues"});
}

Status DiskWriter::Sync(int fd, const std::string& path) const {
  TESSERA_RETURN_IF_ERROR(Before("fsync", path));
  if (fsync(fd) != 0) return SystemError("cannot write to disk", path, errno);
  return absl::OkStatus();
}

Status DiskWriter::SyncDirectory(const std::string& directory) const {
  const OwnedFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return SystemError("cannot open", directory, errno);
  return Sync(fd.get(), directory);
}

Status DiskWriter::Rename(const std::string& from, const std::string& to) const {
  TESSERA_RETURN_IF_ERROR(Before("rename", to));
  if (rename(from.c_str(), to.c_str()) != 0) return SystemError("cannot publish", to, errno);
  return absl::OkStatus();
}

Status DiskWriter::MakeDirectory(const std::string& path) const {
  if (KindOfPath(path) == PathKind::kDirectory) return absl::OkStatus();
  TESSERA_RETURN_IF_ERROR(Before("mkdir", path));
  if (mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) {
    return SystemError("cannot make the directory", path, errno);
  }
  return absl::OkStatus();
}

Status DiskWriter::Unlink(const std::string& path) const {
  TESSERA_RETURN_IF_ERROR(Before("unlink", path));
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return SystemError("cannot remove", path, errno);
  }
  return absl::OkStatus();
}

StatusOr<TempFile> TempFile::Create(const DiskWriter& disk, const std::string& directory) {
  static std::atomic<uint64_t> counter{0};
  for (;;) {
    std::string path = absl::StrCat(directory, "/", getpid(), ".", counter.fetch_add(1), ".",
                                    static_cast<int64_t>(time(nullptr)));
    TESSERA_RETURN_IF_ERROR(disk.Before("create", path));
    OwnedFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (!fd.valid()) {
      if (errno == EEXIST) continue;
      return SystemError("cannot create", path, errno);
    }
    if (flock(fd.get(), LOCK_EX) != 0) return SystemError("cannot lock", path, errno);
    // Cleaning by another process may have come between the creation and the lock.
    struct stat info;
    if (fstat(fd.get(), &info) == 0 && info.st_nlink > 0) {
      return TempFile(disk, std::move(fd), std::move(path));
    }
  }
}

TempFile::~TempFile() {
  if (fd_.valid() && !published_) unlink(path_.c_str());
}

Status TempFile::Append(std::span<const std::byte> bytes) {
  return disk_->WriteAll(fd_.get(), bytes, path_);
}

void TempFile::StartWriteback() const {
  // Only a hint: `Sync` is what makes the bytes durable.
  static_cast<void>(sync_file_range(fd_.get(), 0, 0, SYNC_FILE_RANGE_WRITE));
}

Status TempFile::Sync() { return disk_->Sync(fd_.get(), path_); }

Status TempFile::Publish(const std::string& path) {
  TESSERA_RETURN_IF_ERROR(disk_->Rename(path_, path));
  published_ = true;
  return absl::OkStatus();
}

Status CleanTemporaries(const DiskWriter& disk, const std::string& directory) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory));
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(directory, "/", name);
    const OwnedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid() || flock(fd.get(), LOCK_EX | LOCK_NB) != 0) continue;
    TESSERA_RETURN_IF_ERROR(disk.Unlink(path));
  }
  return absl::OkStatus();
}

StatusOr<std::string> ReadWholeFile(const std::string& path, uint64_t limit) {
  const OwnedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return SystemError("cannot open", path, errno);
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return SystemError("cannot read the size of", path, errno);
  if (!S_ISREG(info.st_mode)) {
    return Error(absl::StatusCode::kInvalidArgument, {.what = "not a regular file", .where = path});
  }
  if (static_cast<uint64_t>(info.st_size) > limit) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "the file is too large",
                  .where = path,
                  .why = absl::StrCat(BytesText(static_cast<uint64_t>(info.st_size)), ", allowed ",
                                      BytesText(limit))});
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = read(fd.get(), text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError("cannot read", path, errno);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  text.resize(done);
  return text;
}

Status ReplaceFile(const DiskWriter& disk, const std::string& tmp_directory,
                   const std::string& path, absl::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(TempFile file, TempFile::Create(disk, tmp_directory));
  TESSERA_RETURN_IF_ERROR(file.Append(BytesOf(text)));
  TESSERA_RETURN_IF_ERROR(file.Sync());
  TESSERA_RETURN_IF_ERROR(file.Publish(path));
  return disk.SyncDirectory(path.substr(0, path.rfind('/')));
}

PathKind KindOfPath(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return PathKind::kMissing;
  if (S_ISREG(info.st_mode)) return PathKind::kFile;
  return S_ISDIR(info.st_mode) ? PathKind::kDirectory : PathKind::kOther;
}

StatusOr<uint64_t> FileSize(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return SystemError("cannot read the size of", path, errno);
  return static_cast<uint64_t>(info.st_size);
}

StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  if (directory == nullptr) {
    if (errno == ENOENT) return names;
    return SystemError("cannot list", path, errno);
  }
  errno = 0;
  while (const dirent* entry = readdir(directory.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) return SystemError("cannot list", path, errno);
  std::sort(names.begin(), names.end());
  return names;
}

std::span<const std::byte> BytesOf(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string BytesText(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text), value < 10 ? "%.2f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

}  // namespace tessera::blockzoo
