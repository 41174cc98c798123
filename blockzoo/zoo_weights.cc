#include "blockzoo/zoo_weights.h"

#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "blockzoo/zoo_mapping.h"
#include "blockzoo/zoo_objects.h"
#include "kernels/thread_pool.h"

namespace tessera::blockzoo {
namespace {

// A derived file is the bytes, then this trailer: magic, size (little-endian), checksum.
constexpr char kMagic[8] = {'T', 'S', 'R', 'D', 'R', 'V', '0', '1'};
constexpr size_t kTrailerBytes = 8 + 8 + 32;

std::array<std::byte, kTrailerBytes> TrailerOf(uint64_t size, const Digest& checksum) {
  std::array<std::byte, kTrailerBytes> trailer;
  std::memcpy(trailer.data(), kMagic, 8);
  for (int i = 0; i < 8; ++i) trailer[8 + i] = static_cast<std::byte>(size >> (8 * i));
  std::memcpy(trailer.data() + 16, checksum.bytes.data(), 32);
  return trailer;
}

Digest DerivedChecksum(absl::string_view transform, const Digest& tensor,
                       std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.AddText(transform).AddDigest(tensor);
  hasher.AddBytes({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  return hasher.Finish();
}

Status Damaged(const std::string& path, absl::string_view why) {
  return Error(absl::StatusCode::kDataLoss, {.what = "the derived weight is damaged",
                                             .where = path,
                                             .why = std::string(why),
                                             .fix = "run `tessera zoo gc --derived`: it is built "
                                                    "again when needed"});
}

// The bytes before a trailer that fits the file's size.
StatusOr<std::span<const std::byte>> WithoutTrailer(std::span<const std::byte> file,
                                                    const std::string& path) {
  if (file.size() < kTrailerBytes) return Damaged(path, "it is cut short");
  const std::span<const std::byte> bytes = file.first(file.size() - kTrailerBytes);
  const auto expected = TrailerOf(bytes.size(), Digest{});
  if (std::memcmp(file.data() + bytes.size(), expected.data(), 16) != 0) {
    return Damaged(path, "it is cut short, or its trailer is changed");
  }
  return bytes;
}

}  // namespace

struct WeightCache::Weight : WeightBytes {
  Weight(std::shared_ptr<const MappedFile> mapped, std::span<const std::byte> of,
         std::string path = "")
      : WeightBytes{of, std::move(path)}, memory(std::move(mapped)) {}
  [[nodiscard]] bool anonymous() const { return file.empty(); }

  std::shared_ptr<const MappedFile> memory;
};

std::shared_ptr<WeightCache::Entry> WeightCache::EntryOf(const std::string& path) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<Entry>& entry = entries_[path];
  if (entry == nullptr) entry = std::make_shared<Entry>();
  return entry;
}

std::shared_ptr<const WeightCache::Weight> WeightCache::Live(const Entry& entry) {
  const std::lock_guard lock(mutex_);
  return entry.live.lock();
}

WeightHandle WeightCache::Publish(Entry& entry, const std::shared_ptr<const Weight>& weight) {
  const std::lock_guard lock(mutex_);
  entry.live = weight;
  return WeightHandle(weight);
}

StatusOr<WeightHandle> WeightCache::Canonical(const TensorRef& tensor) {
  const std::string path = layout_.Object(ObjectKind::kTensor, tensor.tensor);
  const std::shared_ptr<Entry> entry = EntryOf(path);
  const std::lock_guard lock(entry->making);
  std::shared_ptr<const Weight> weight = Live(*entry);
  if (weight == nullptr) {
    TESSERA_ASSIGN_OR_RETURN(weight, MapCanonical(tensor, path));
  }
  return Publish(*entry, weight);
}

StatusOr<std::shared_ptr<const WeightCache::Weight>> WeightCache::MapCanonical(
    const TensorRef& tensor, const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(const std::optional<SyntheticRecipe> recipe, Recipe(tensor));
  if (recipe.has_value()) {
    TESSERA_ASSIGN_OR_RETURN(const kernels::SyntheticTensor generator, GeneratorOf(*recipe));
    TESSERA_ASSIGN_OR_RETURN(const auto memory, Allocate(tensor, generator.bytes));
    kernels::FillSynthetic(generator, memory->writable(), kernels::ThreadPool::UsableProcessors());
    return std::make_shared<const Weight>(memory, memory->bytes());
  }
  TESSERA_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(tensor.dtype, tensor.shape));
  TESSERA_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  if (file->bytes().size() == bytes) {
    return std::make_shared<const Weight>(file, file->bytes(), path);
  }
  return Error(absl::StatusCode::kDataLoss,
               {.what = absl::StrCat("the tensor ", tensor.role, " is damaged"),
                .where = path,
                .why = absl::StrCat("it has ", file->bytes().size(), " bytes, ",
                                    kernels::InfoOf(tensor.dtype).name, " ",
                                    ShapeText(tensor.shape), " needs ", bytes),
                .fix = "remove that file and import the model again: only it is written"});
}

StatusOr<std::optional<SyntheticRecipe>> WeightCache::Recipe(const TensorRef& tensor) const {
  StatusOr<SyntheticRecipe> recipe = ReadRecipe(layout_, tensor.tensor);
  if (absl::IsNotFound(recipe.status())) return std::nullopt;
  if (!recipe.ok()) return recipe.status();
  if (recipe->dtype == tensor.dtype && recipe->shape == tensor.shape) return *std::move(recipe);
  return Error(
      absl::StatusCode::kDataLoss,
      {.what = absl::StrCat("the recipe of the tensor ", tensor.role, " does not fit"),
       .where = layout_.Object(ObjectKind::kRecipe, tensor.tensor),
       .why = absl::StrCat("it is for ", kernels::InfoOf(recipe->dtype).name, " ",
                           ShapeText(recipe->shape), ", the block names ",
                           kernels::InfoOf(tensor.dtype).name, " ", ShapeText(tensor.shape))});
}

StatusOr<std::shared_ptr<MappedFile>> WeightCache::Allocate(const TensorRef& tensor,
                                                            uint64_t bytes) {
  const uint64_t used = InUse().anonymous_bytes;
  if (used <= memory_bytes_ && bytes <= memory_bytes_ - used) return MappedFile::Anonymous(bytes);
  return Error(
      absl::StatusCode::kResourceExhausted,
      {.what = absl::StrCat("no memory for the weight ", tensor.role, " ", ShapeText(tensor.shape)),
       .where = layout_.root(),
       .why = absl::StrCat("weights made in memory take ", BytesText(used), " of ",
                           BytesText(memory_bytes_), ", this one ", BytesText(bytes)),
       .fix = "unload a model, serve a smaller one, or free memory and start again"});
}

StatusOr<WeightHandle> WeightCache::Derived(const TensorRef& tensor, absl::string_view transform,
                                            uint64_t bytes, const Derive& derive) {
  TESSERA_RETURN_IF_ERROR(CheckTransformName(transform));
  const std::string path = layout_.DerivedFile(transform, tensor.tensor);
  const std::shared_ptr<Entry> entry = EntryOf(path);
  const std::lock_guard lock(entry->making);
  std::shared_ptr<const Weight> weight = Live(*entry);
  if (weight != nullptr && weight->bytes.size() != bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the transform ", transform, " is in use with another size"));
  }
  if (weight == nullptr) {
    StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
    if (file.ok()) {
      const auto payload = WithoutTrailer((*file)->bytes(), path);
      if (payload.ok() && payload->size() == bytes) {
        weight = std::make_shared<const Weight>(*file, *payload, path);
      }
    }
  }
  if (weight == nullptr) {
    TESSERA_ASSIGN_OR_RETURN(weight, MakeDerived(tensor, transform, bytes, derive));
  }
  return Publish(*entry, weight);
}

StatusOr<std::shared_ptr<const WeightCache::Weight>> WeightCache::MakeDerived(
    const TensorRef& tensor, absl::string_view transform, uint64_t bytes, const Derive& derive) {
  TESSERA_ASSIGN_OR_RETURN(const WeightHandle canonical, Canonical(tensor));
  TESSERA_ASSIGN_OR_RETURN(const auto memory, Allocate(tensor, bytes));
  derive({canonical.data(), canonical.size()}, memory->writable());
  // What a recipe saves on the disk must not come back as its rearrangement.
  const bool synthetic =
      KindOfPath(layout_.Object(ObjectKind::kRecipe, tensor.tensor)) == PathKind::kFile;
  if (storage_ == DerivedStorage::kCached && !synthetic &&
      StoreDerived(tensor.tensor, transform, memory->bytes()).ok()) {
    // The file's pages are shared with other processes and can be dropped under pressure.
    const std::string path = layout_.DerivedFile(transform, tensor.tensor);
    StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
    if (file.ok() && (*file)->bytes().size() == bytes + kTrailerBytes) {
      return std::make_shared<const Weight>(*file, (*file)->bytes().first(bytes), path);
    }
  }
  return std::make_shared<const Weight>(memory, memory->bytes());
}

Status WeightCache::StoreDerived(const Digest& tensor, absl::string_view transform,
                                 std::span<const std::byte> bytes) {
  const std::string directory = layout_.DerivedDirectory(transform);
  TESSERA_RETURN_IF_ERROR(disk_.CheckSpace(layout_.root(), bytes.size() + kTrailerBytes));
  TESSERA_RETURN_IF_ERROR(disk_.MakeDirectory(directory));
  TESSERA_ASSIGN_OR_RETURN(TempFile file, TempFile::Create(disk_, layout_.Temporary()));
  TESSERA_RETURN_IF_ERROR(file.Append(bytes));
  const auto trailer = TrailerOf(bytes.size(), DerivedChecksum(transform, tensor, bytes));
  TESSERA_RETURN_IF_ERROR(file.Append(trailer));
  TESSERA_RETURN_IF_ERROR(file.Sync());
  return file.Publish(layout_.DerivedFile(transform, tensor));
}

WeightCache::Usage WeightCache::InUse() {
  Usage usage;
  const std::lock_guard lock(mutex_);
  for (const auto& [path, entry] : entries_) {
    const std::shared_ptr<const Weight> weight = entry->live.lock();
    if (weight == nullptr) continue;
    (weight->anonymous() ? usage.anonymous_bytes : usage.mapped_bytes) += weight->bytes.size();
  }
  return usage;
}

Status CheckDerivedFile(const std::string& path, absl::string_view transform,
                        const Digest& tensor) {
  TESSERA_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  TESSERA_ASSIGN_OR_RETURN(const auto bytes, WithoutTrailer(file->bytes(), path));
  const auto expected = TrailerOf(bytes.size(), DerivedChecksum(transform, tensor, bytes));
  if (std::memcmp(file->bytes().data() + bytes.size(), expected.data(), kTrailerBytes) != 0) {
    return Damaged(path, "its content does not match its checksum");
  }
  return absl::OkStatus();
}

}  // namespace tessera::blockzoo
