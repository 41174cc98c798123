#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_objects.h"
#include "blockzoo/zoo_references.h"

namespace tessera::blockzoo {
namespace {

constexpr uint64_t kMaxPinBytes = uint64_t{64} << 20;

// One collection: marks what chains and live pins use, then removes the rest.
class Collector {
 public:
  Collector(const ZooLayout& layout, const DiskWriter& disk, const GcOptions& options)
      : layout_(layout), disk_(disk), options_(options), reader_(layout) {}

  StatusOr<GcReport> Run() {
    TESSERA_RETURN_IF_ERROR(MarkChains());
    TESSERA_RETURN_IF_ERROR(MarkPins());
    for (const ObjectKind kind : kObjectKinds) {
      TESSERA_RETURN_IF_ERROR(SweepObjects(kind));
    }
    TESSERA_RETURN_IF_ERROR(SweepDerived());
    return std::move(report_);
  }

 private:
  Status Mark(const ChainManifest& chain) {
    const Status status = AddReferences(chain, reader_, used_);
    if (status.ok()) return status;
    return Error(absl::StatusCode::kDataLoss,
                 {.what = absl::StrCat("gc cannot tell what the chain ", chain.name, " uses"),
                  .where = layout_.root(),
                  .why = std::string(status.message()),
                  .fix = "import the model again, or remove the chain; nothing was removed"});
  }

  Status MarkChains() {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListChainNames(layout_));
    for (const std::string& name : names) {
      TESSERA_ASSIGN_OR_RETURN(const ChainManifest chain, ReadChain(layout_, name));
      TESSERA_RETURN_IF_ERROR(Mark(chain));
    }
    return absl::OkStatus();
  }

  Status MarkPins() {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(layout_.Pins()));
    for (const std::string& name : names) {
      const std::string path = absl::StrCat(layout_.Pins(), "/", name);
      const OwnedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
      // Released between the listing and now.
      if (!fd.valid()) continue;
      if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) {
        ++report_.stale_pins;
        if (deletes()) TESSERA_RETURN_IF_ERROR(disk_.Unlink(path));
        continue;
      }
      const StatusOr<std::string> text = ReadWholeFile(path, kMaxPinBytes);
      if (!text.ok() && absl::IsNotFound(text.status())) continue;
      if (!text.ok()) return text.status();
      TESSERA_ASSIGN_OR_RETURN(const ChainManifest chain, ParseChainManifest(*text));
      TESSERA_RETURN_IF_ERROR(Mark(chain));
      report_.pinned_chains.push_back(chain.name);
    }
    return absl::OkStatus();
  }

  Status SweepObjects(ObjectKind kind) {
    std::vector<std::string> strangers;
    TESSERA_ASSIGN_OR_RETURN(const std::vector<Digest> digests,
                             ListObjects(layout_, kind, strangers));
    for (const Digest& digest : digests) {
      if (used_.Uses(kind, digest)) {
        ++report_.kept_objects;
        continue;
      }
      ++report_.objects;
      TESSERA_RETURN_IF_ERROR(Remove(layout_.Object(kind, digest)));
    }
    return absl::OkStatus();
  }

  Status SweepDerived() {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> transforms,
                             ListDirectory(layout_.Derived()));
    for (const std::string& transform : transforms) {
      const std::string directory = layout_.DerivedDirectory(transform);
      TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory));
      for (const std::string& name : names) {
        const StatusOr<Digest> tensor = Digest::FromHex(name);
        const bool live = tensor.ok() && used_.tensors.contains(*tensor);
        if (live && options_.derived == DerivedFiles::kKeepLive) continue;
        ++report_.derived;
        TESSERA_RETURN_IF_ERROR(Remove(absl::StrCat(directory, "/", name)));
      }
      // Fails, as it should, while something is left in it.
      if (deletes()) rmdir(directory.c_str());
    }
    return absl::OkStatus();
  }

  Status Remove(const std::string& path) {
    const StatusOr<uint64_t> size = FileSize(path);
    report_.freed_bytes += size.value_or(0);
    return deletes() ? disk_.Unlink(path) : absl::OkStatus();
  }

  bool deletes() const { return options_.effect == GcEffect::kDelete; }

  const ZooLayout& layout_;
  const DiskWriter& disk_;
  const GcOptions& options_;
  BlockReader reader_;
  References used_;
  GcReport report_;
};

}  // namespace

StatusOr<GcReport> Zoo::Gc(const GcOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const FileLock writer, LockForWriting("collect garbage"));
  TESSERA_ASSIGN_OR_RETURN(const FileLock sweep,
                           FileLock::Take(layout_.SweepLock(), LockKind::kExclusive,
                                          "collect garbage", options_.lock_wait));
  return Collector(layout_, disk_, options).Run();
}

}  // namespace tessera::blockzoo
