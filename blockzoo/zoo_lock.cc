#include "blockzoo/zoo_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

constexpr std::chrono::milliseconds kPoll{20};

Status Busy(const std::string& path) {
  const StatusOr<std::string> holder = ReadWholeFile(path, 4096);
  return Error(absl::StatusCode::kUnavailable,
               {.what = "the zoo is in use by another process",
                .where = path,
                .why = holder.ok() && !holder->empty() ? absl::StrCat("held by ", *holder)
                                                       : "the lock is held",
                .fix = "wait for it to finish, then run the command again"});
}

}  // namespace

StatusOr<FileLock> FileLock::Take(const std::string& path, LockKind kind,
                                  const std::string& purpose, std::chrono::milliseconds wait) {
  OwnedFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!fd.valid()) return SystemError("cannot open the lock", path, errno);
  const auto deadline = std::chrono::steady_clock::now() + wait;
  const int operation = kind == LockKind::kShared ? LOCK_SH : LOCK_EX;
  while (flock(fd.get(), operation | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return SystemError("cannot lock", path, errno);
    if (std::chrono::steady_clock::now() >= deadline) return Busy(path);
    std::this_thread::sleep_for(kPoll);
  }
  if (kind == LockKind::kExclusive) {
    const std::string text = absl::StrCat(purpose, " (process ", getpid(), ")");
    // The text only serves the message above: a full disk must not stop the lock.
    if (ftruncate(fd.get(), 0) == 0) {
      [[maybe_unused]] const ssize_t ignored = pwrite(fd.get(), text.data(), text.size(), 0);
    }
  }
  return FileLock(std::move(fd));
}

}  // namespace tessera::blockzoo
