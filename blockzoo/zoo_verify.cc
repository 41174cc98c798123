#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_mapping.h"
#include "blockzoo/zoo_objects.h"
#include "blockzoo/zoo_references.h"

namespace tessera::blockzoo {
namespace {

constexpr size_t kHashChunk = 16 << 20;

// One pass over everything that is stored.
class Verifier {
 public:
  Verifier(const ZooLayout& layout, const ZooProgress& progress)
      : layout_(layout), progress_(progress), reader_(layout) {}

  StatusOr<VerifyReport> Run() {
    for (const ObjectKind kind : kObjectKinds) {
      std::vector<std::string> strangers;
      TESSERA_ASSIGN_OR_RETURN(present_[kind], ListObjects(layout_, kind, strangers));
      for (const std::string& path : strangers) Problem(path, "no object has such a name");
      for (const Digest& digest : present_[kind]) {
        total_bytes_ += FileSize(layout_.Object(kind, digest)).value_or(0);
      }
    }
    CheckBlocks();
    CheckTensors();
    CheckRecipes();
    CheckAssets();
    TESSERA_RETURN_IF_ERROR(CheckChains());
    TESSERA_RETURN_IF_ERROR(CheckDerived());
    return std::move(report_);
  }

 private:
  void Problem(absl::string_view where, absl::string_view why) {
    report_.problems.push_back(absl::StrCat(where, ": ", why));
  }

  void Advance(uint64_t bytes) {
    report_.bytes += bytes;
    if (progress_) progress_(report_.bytes, std::max(report_.bytes, total_bytes_));
  }

  // Re-hashes every block, whether used or not, and notes the tensors they name.
  void CheckBlocks() {
    for (const Digest& digest : present_[ObjectKind::kBlock]) {
      ++report_.blocks;
      const std::string path = layout_.Object(ObjectKind::kBlock, digest);
      Advance(FileSize(path).value_or(0));
      const StatusOr<const BlockManifest*> block = reader_.Get(digest);
      if (!block.ok()) {
        Problem(path, block.status().message());
        continue;
      }
      for (const TensorRef& ref : (*block)->tensors) known_.emplace(ref.tensor, ref);
    }
  }

  void CheckTensors() {
    for (const Digest& digest : present_[ObjectKind::kTensor]) {
      ++report_.tensors;
      const auto ref = known_.find(digest);
      // An import that was cut short leaves tensors that no block names yet; their shape is
      // unknown.
      if (ref != known_.end()) CheckTensor(ref->second);
    }
  }

  void CheckTensor(const TensorRef& ref) {
    const std::string path = layout_.Object(ObjectKind::kTensor, ref.tensor);
    const StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
    if (!file.ok()) return Problem(path, file.status().message());
    const std::span<const std::byte> bytes = (*file)->bytes();
    if (bytes.size() != TensorBytes(ref.dtype, ref.shape).value_or(0)) {
      return Problem(path, absl::StrCat("it has ", bytes.size(), " bytes, its shape needs ",
                                        TensorBytes(ref.dtype, ref.shape).value_or(0)));
    }
    TensorHasher hasher(ref.dtype, ref.shape);
    for (size_t begin = 0; begin < bytes.size(); begin += kHashChunk) {
      const auto chunk = bytes.subspan(begin, std::min(kHashChunk, bytes.size() - begin));
      hasher.Add(chunk);
      Advance(chunk.size());
    }
    if (hasher.Finish() != ref.tensor) Problem(path, "its content does not hash to its name");
  }

  // What a recipe gives is not made: its text decides it.
  void CheckRecipes() {
    for (const Digest& digest : present_[ObjectKind::kRecipe]) {
      ++report_.recipes;
      const std::string path = layout_.Object(ObjectKind::kRecipe, digest);
      Advance(FileSize(path).value_or(0));
      const StatusOr<SyntheticRecipe> recipe = ReadRecipe(layout_, digest);
      const auto ref = known_.find(digest);
      if (!recipe.ok()) {
        Problem(path, recipe.status().message());
      } else if (ref != known_.end() &&
                 (ref->second.dtype != recipe->dtype || ref->second.shape != recipe->shape)) {
        Problem(path, "it is for another type or shape than a block names");
      }
    }
  }

  void CheckAssets() {
    for (const Digest& digest : present_[ObjectKind::kAsset]) {
      ++report_.assets;
      const StatusOr<std::string> asset = ReadAsset(layout_, digest);
      if (!asset.ok()) {
        Problem(layout_.Object(ObjectKind::kAsset, digest), asset.status().message());
      } else {
        Advance(asset->size());
      }
    }
  }

  Status CheckChains() {
    References used;
    TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListChainNames(layout_));
    for (const std::string& name : names) {
      ++report_.chains;
      const StatusOr<ChainManifest> chain = ReadChain(layout_, name);
      if (!chain.ok()) {
        Problem(name, chain.status().message());
        continue;
      }
      References references;
      const Status status = AddReferences(*chain, reader_, references);
      if (!status.ok()) Problem(absl::StrCat("chain ", name), status.message());
      for (const auto& [digest, bytes] : references.tensors) {
        const bool recipe = std::binary_search(present_[ObjectKind::kRecipe].begin(),
                                               present_[ObjectKind::kRecipe].end(), digest);
        if (!recipe) Require(ObjectKind::kTensor, digest, name);
      }
      for (const Digest& digest : references.assets) Require(ObjectKind::kAsset, digest, name);
      used.tensors.insert(references.tensors.begin(), references.tensors.end());
      used.blocks.insert(references.blocks.begin(), references.blocks.end());
      used.assets.insert(references.assets.begin(), references.assets.end());
    }
    for (const ObjectKind kind : kObjectKinds) {
      for (const Digest& digest : present_[kind]) {
        if (!used.Uses(kind, digest)) ++report_.unreferenced;
      }
    }
    return absl::OkStatus();
  }

  void Require(ObjectKind kind, const Digest& digest, const std::string& chain) {
    const std::string path = layout_.Object(kind, digest);
    if (KindOfPath(path) != PathKind::kFile) {
      Problem(absl::StrCat("chain ", chain),
              absl::StrCat("the ", NameOf(kind), " ", path, " is missing"));
    }
  }

  Status CheckDerived() {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> transforms,
                             ListDirectory(layout_.Derived()));
    for (const std::string& transform : transforms) {
      const std::string directory = layout_.DerivedDirectory(transform);
      TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory));
      for (const std::string& name : names) {
        const std::string path = absl::StrCat(directory, "/", name);
        const StatusOr<Digest> tensor = Digest::FromHex(name);
        if (!tensor.ok()) {
          Problem(path, "no derived weight has such a name");
          continue;
        }
        ++report_.derived;
        const Status status = CheckDerivedFile(path, transform, *tensor);
        // A gc may have dropped it since the listing.
        if (!status.ok() && !absl::IsNotFound(status)) Problem(path, status.message());
      }
    }
    return absl::OkStatus();
  }

  const ZooLayout& layout_;
  const ZooProgress& progress_;
  BlockReader reader_;
  std::map<ObjectKind, std::vector<Digest>> present_;
  std::map<Digest, TensorRef> known_;
  uint64_t total_bytes_ = 0;
  VerifyReport report_;
};

}  // namespace

StatusOr<VerifyReport> Zoo::Verify(const ZooProgress& progress) const {
  return Verifier(layout_, progress).Run();
}

}  // namespace tessera::blockzoo
