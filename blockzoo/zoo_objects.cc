#include "blockzoo/zoo_objects.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tessera::blockzoo {
namespace {

constexpr size_t kBatchObjects = 64;
constexpr uint64_t kBatchBytes = uint64_t{256} << 20;
constexpr uint64_t kMaxManifestBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxAssetBytes = uint64_t{1} << 30;
constexpr absl::string_view kChainSuffix = ".json";

Status Damaged(ObjectKind kind, const std::string& path, absl::string_view why) {
  return Error(absl::StatusCode::kDataLoss,
               {.what = absl::StrCat("the ", NameOf(kind), " is damaged"),
                .where = path,
                .why = std::string(why),
                .fix = "remove that file and import the model again: only it is written"});
}

StatusOr<std::string> ReadObject(const ZooLayout& layout, ObjectKind kind, const Digest& digest,
                                 uint64_t limit) {
  const std::string path = layout.Object(kind, digest);
  TESSERA_ASSIGN_OR_RETURN(std::string text, ReadWholeFile(path, limit));
  if (AssetIdentity(text) != digest) {
    return Damaged(kind, path, "its content does not hash to its name");
  }
  return text;
}

}  // namespace

Digest AssetIdentity(absl::string_view bytes) {
  Hasher hasher;
  hasher.AddBytes({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  return hasher.Finish();
}

TensorHasher::TensorHasher(kernels::DType dtype, const Shape& shape) {
  hasher_.AddText(kernels::InfoOf(dtype).name);
  hasher_.AddU64(shape.size());
  for (const uint64_t dimension : shape) hasher_.AddU64(dimension);
}

void TensorHasher::Add(std::span<const std::byte> bytes) {
  hasher_.AddBytes({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

ObjectWriter::Claim ObjectWriter::ClaimPath(const std::string& path, const std::string& directory,
                                            uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const StatusOr<uint64_t> size = FileSize(path);
  if (claimed_.contains(path) || (size.ok() && *size == bytes)) {
    present_bytes_ += bytes;
    // A killed run may have renamed it without syncing the directory.
    touched_directories_.insert(directory);
    return Claim::kPresent;
  }
  claimed_.insert(path);
  return Claim::kToWrite;
}

Status ObjectWriter::Put(ObjectKind kind, const Digest& digest, std::span<const std::byte> bytes) {
  const std::string path = layout_.Object(kind, digest);
  const std::string directory = layout_.ObjectDirectory(kind, digest);
  if (ClaimPath(path, directory, bytes.size()) == Claim::kPresent) return absl::OkStatus();
  TESSERA_RETURN_IF_ERROR(disk_.CheckSpace(layout_.root(), bytes.size()));
  TESSERA_RETURN_IF_ERROR(disk_.MakeDirectory(directory));
  TESSERA_ASSIGN_OR_RETURN(TempFile file, TempFile::Create(disk_, layout_.Temporary()));
  TESSERA_RETURN_IF_ERROR(file.Append(bytes));
  file.StartWriteback();
  std::vector<Pending> batch;
  {
    const std::lock_guard lock(mutex_);
    pending_.push_back({std::move(file), directory, path});
    pending_bytes_ += bytes.size();
    new_bytes_ += bytes.size();
    ++new_objects_;
    if (pending_.size() < kBatchObjects && pending_bytes_ < kBatchBytes) return absl::OkStatus();
    batch = std::exchange(pending_, {});
    pending_bytes_ = 0;
  }
  return Publish(std::move(batch));
}

Status ObjectWriter::Publish(std::vector<Pending> batch) {
  for (Pending& pending : batch) TESSERA_RETURN_IF_ERROR(pending.file.Sync());
  for (Pending& pending : batch) TESSERA_RETURN_IF_ERROR(pending.file.Publish(pending.path));
  const std::lock_guard lock(mutex_);
  for (const Pending& pending : batch) {
    touched_directories_.insert(pending.directory);
    claimed_.erase(pending.path);
  }
  return absl::OkStatus();
}

Status ObjectWriter::Commit() {
  TESSERA_RETURN_IF_ERROR(Publish(std::exchange(pending_, {})));
  pending_bytes_ = 0;
  for (const std::string& directory : touched_directories_) {
    TESSERA_RETURN_IF_ERROR(disk_.SyncDirectory(directory));
  }
  for (const ObjectKind kind : kObjectKinds) {
    TESSERA_RETURN_IF_ERROR(disk_.SyncDirectory(layout_.Objects(kind)));
  }
  touched_directories_.clear();
  return absl::OkStatus();
}

StatusOr<BlockManifest> ReadBlock(const ZooLayout& layout, const Digest& digest) {
  TESSERA_ASSIGN_OR_RETURN(const std::string text,
                           ReadObject(layout, ObjectKind::kBlock, digest, kMaxManifestBytes));
  StatusOr<BlockManifest> manifest = ParseBlockManifest(text);
  if (manifest.ok()) return manifest;
  return Damaged(ObjectKind::kBlock, layout.Object(ObjectKind::kBlock, digest),
                 manifest.status().message());
}

StatusOr<SyntheticRecipe> ReadRecipe(const ZooLayout& layout, const Digest& digest) {
  const std::string path = layout.Object(ObjectKind::kRecipe, digest);
  const StatusOr<std::string> text = ReadWholeFile(path, kMaxRecipeBytes);
  if (absl::IsInvalidArgument(text.status())) {
    return Damaged(ObjectKind::kRecipe, path, text.status().message());
  }
  if (!text.ok()) return text.status();
  StatusOr<SyntheticRecipe> recipe = ParseSyntheticRecipe(*text);
  if (!recipe.ok()) return Damaged(ObjectKind::kRecipe, path, recipe.status().message());
  if (IdentityOf(*recipe) != digest) {
    return Damaged(ObjectKind::kRecipe, path, "its content does not hash to its name");
  }
  return recipe;
}

StatusOr<std::string> ReadAsset(const ZooLayout& layout, const Digest& digest) {
  return ReadObject(layout, ObjectKind::kAsset, digest, kMaxAssetBytes);
}

StatusOr<ChainManifest> ReadChain(const ZooLayout& layout, absl::string_view name) {
  TESSERA_RETURN_IF_ERROR(CheckChainName(name));
  const std::string path = layout.Chain(name);
  StatusOr<std::string> text = ReadWholeFile(path, kMaxManifestBytes);
  if (!text.ok() && absl::IsNotFound(text.status())) {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListChainNames(layout));
    return Error(absl::StatusCode::kNotFound,
                 {.what = absl::StrCat("there is no chain named ", name),
                  .where = layout.root(),
                  .why = names.empty() ? "the zoo has no chain"
                                       : absl::StrCat("the zoo has ", absl::StrJoin(names, ", ")),
                  .fix = "name one of them, or import it with `tessera zoo import`"});
  }
  if (!text.ok()) return text.status();
  StatusOr<ChainManifest> chain = ParseChainManifest(*text);
  std::string why;
  if (!chain.ok()) {
    why = std::string(chain.status().message());
  } else if (chain->name != name) {
    why = absl::StrCat("it is the manifest of ", chain->name);
  }
  if (why.empty()) return chain;
  return Error(
      absl::StatusCode::kDataLoss,
      {.what = absl::StrCat("the chain ", name, " is damaged"),
       .where = path,
       .why = why,
       .fix = absl::StrCat("remove it (`tessera zoo rm ", name, "`) and import it again")});
}

StatusOr<std::vector<std::string>> ListChainNames(const ZooLayout& layout) {
  std::vector<std::string> names;
  TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> files, ListDirectory(layout.Chains()));
  for (const std::string& file : files) {
    if (!absl::EndsWith(file, kChainSuffix)) continue;
    const std::string name = file.substr(0, file.size() - kChainSuffix.size());
    if (CheckChainName(name).ok()) names.push_back(name);
  }
  return names;
}

}  // namespace tessera::blockzoo
