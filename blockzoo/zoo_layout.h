// Where things lie in a zoo's directory, and the names that are allowed there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "blockzoo/zoo_io.h"
#include "config/foundation/digest.h"
#include "config/foundation/status.h"

namespace tessera::blockzoo {

// What is stored by content under objects/.
enum class ObjectKind : uint8_t { kTensor, kBlock, kAsset, kRecipe };
inline constexpr ObjectKind kObjectKinds[] = {ObjectKind::kTensor, ObjectKind::kBlock,
                                              ObjectKind::kAsset, ObjectKind::kRecipe};
[[nodiscard]] const char* NameOf(ObjectKind kind);  // "tensor", "block", "asset", "recipe"

// The version of this layout, in zoo.json.
inline constexpr uint64_t kZooFormat = 1;

class ZooLayout {
 public:
  explicit ZooLayout(std::string root) : root_(std::move(root)) {}

  [[nodiscard]] const std::string& root() const { return root_; }
  [[nodiscard]] std::string Settings() const { return root_ + "/zoo.json"; }
  [[nodiscard]] std::string Temporary() const { return root_ + "/tmp"; }
  [[nodiscard]] std::string Chains() const { return root_ + "/chains"; }
  [[nodiscard]] std::string Pins() const { return root_ + "/pins"; }
  [[nodiscard]] std::string Derived() const { return root_ + "/derived"; }
  [[nodiscard]] std::string WriterLock() const { return root_ + "/lock"; }
  [[nodiscard]] std::string SweepLock() const { return root_ + "/lock.sweep"; }
  [[nodiscard]] std::string Objects(ObjectKind kind) const;  // objects/tensors
  [[nodiscard]] std::string ObjectDirectory(ObjectKind kind, const Digest& digest) const;
  [[nodiscard]] std::string Object(ObjectKind kind, const Digest& digest) const;
  [[nodiscard]] std::string Chain(absl::string_view name) const;
  [[nodiscard]] std::string DerivedDirectory(absl::string_view transform) const;
  [[nodiscard]] std::string DerivedFile(absl::string_view transform, const Digest& tensor) const;

  // Makes zoo.json (first, so that a directory with other content is never taken over) and the
  // directories. OK when they are there. FAILED_PRECONDITION when `root` holds something else.
  [[nodiscard]] Status Create(const DiskWriter& disk) const;
  // NOT_FOUND when there is no zoo (a directory whose creation was cut short is an empty one),
  // FAILED_PRECONDITION when it is newer than this program.
  [[nodiscard]] Status CheckVersion() const;

 private:
  std::string root_;
};

// 1 to 128 characters of A-Z a-z 0-9 . _ - : without a leading dot; INVALID_ARGUMENT otherwise.
[[nodiscard]] Status CheckChainName(absl::string_view name);
// As a chain name, without ':'.
[[nodiscard]] Status CheckTransformName(absl::string_view name);

// The digests whose objects of `kind` are on disk, sorted; files with other names go to
// `strangers`.
[[nodiscard]] StatusOr<std::vector<Digest>> ListObjects(const ZooLayout& layout, ObjectKind kind,
                                                        std::vector<std::string>& strangers);

}  // namespace tessera::blockzoo
