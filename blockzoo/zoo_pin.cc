// Pins: what a running daemon serves is kept by gc. A pin is a chain manifest in pins/ whose file
// the daemon holds locked; the lock dies with the daemon, and gc removes pins that nobody holds.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_objects.h"

namespace tessera::blockzoo {

ZooPin& ZooPin::operator=(ZooPin&& other) noexcept {
  if (this != &other) {
    if (lock_.valid()) unlink(path_.c_str());
    path_ = std::move(other.path_);
    lock_ = std::move(other.lock_);
  }
  return *this;
}

ZooPin::~ZooPin() {
  if (lock_.valid()) unlink(path_.c_str());
}

StatusOr<PinnedChain> Zoo::Pin(absl::string_view name) {
  static std::atomic<uint64_t> counter{0};
  PinnedChain pinned;
  if (mode() == ZooMode::kReadOnly) {
    TESSERA_ASSIGN_OR_RETURN(pinned.chain, ReadChain(layout_, name));
    return pinned;
  }
  TESSERA_ASSIGN_OR_RETURN(const FileLock lock,
                           FileLock::Take(layout_.SweepLock(), LockKind::kShared,
                                          absl::StrCat("load ", name), options_.lock_wait));
  TESSERA_ASSIGN_OR_RETURN(pinned.chain, ReadChain(layout_, name));
  TESSERA_ASSIGN_OR_RETURN(TempFile file, TempFile::Create(disk_, layout_.Temporary()));
  TESSERA_RETURN_IF_ERROR(file.Append(BytesOf(CanonicalText(pinned.chain))));
  const std::string path =
      absl::StrCat(layout_.Pins(), "/", getpid(), ".", counter.fetch_add(1), ".json");
  TESSERA_RETURN_IF_ERROR(file.Publish(path));
  pinned.pin.path_ = path;
  pinned.pin.lock_ = file.TakeLock();
  return pinned;
}

}  // namespace tessera::blockzoo
