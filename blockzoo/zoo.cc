#include "blockzoo/zoo.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/zoo_objects.h"

namespace tessera::blockzoo {
namespace {

std::string WithoutTrailingSlash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace

Zoo::Zoo(ZooOptions options)
    : options_(std::move(options)),
      layout_(WithoutTrailingSlash(options_.directory)),
      disk_{options_.disk_hook, options_.write_chunk_bytes == 0 ? 1 : options_.write_chunk_bytes,
            options_.reserve_bytes},
      weights_(layout_, disk_,
               options_.mode == ZooMode::kReadOnly ? DerivedStorage::kMemoryOnly
                                                   : DerivedStorage::kCached,
               options_.memory_bytes) {}

StatusOr<std::unique_ptr<Zoo>> Zoo::Open(ZooOptions options) {
  if (options.directory.empty()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "the zoo's directory is empty", .fix = "name one with --zoo DIR"});
  }
  std::unique_ptr<Zoo> zoo(new Zoo(std::move(options)));
  if (zoo->mode() == ZooMode::kCreate &&
      KindOfPath(zoo->layout_.Settings()) == PathKind::kMissing) {
    TESSERA_RETURN_IF_ERROR(zoo->layout_.Create(zoo->disk_));
  }
  TESSERA_RETURN_IF_ERROR(zoo->layout_.CheckVersion());
  // A creation that was cut short after zoo.json is finished here.
  if (zoo->mode() != ZooMode::kReadOnly) {
    TESSERA_RETURN_IF_ERROR(zoo->layout_.Create(zoo->disk_));
  }
  return zoo;
}

StatusOr<WeightHandle> Zoo::Canonical(const TensorRef& tensor) {
  return weights_.Canonical(tensor);
}

StatusOr<WeightHandle> Zoo::Derived(const TensorRef& tensor, absl::string_view transform,
                                    uint64_t bytes, const Derive& derive) {
  return weights_.Derived(tensor, transform, bytes, derive);
}

StatusOr<std::optional<SyntheticRecipe>> Zoo::Recipe(const TensorRef& tensor) {
  return weights_.Recipe(tensor);
}

StatusOr<BlockManifest> Zoo::Block(const Digest& block) { return ReadBlock(layout_, block); }

StatusOr<ChainManifest> Zoo::Chain(absl::string_view name) const {
  return ReadChain(layout_, name);
}

StatusOr<std::string> Zoo::Asset(const Digest& asset) const { return ReadAsset(layout_, asset); }

StatusOr<std::vector<std::string>> Zoo::ChainNames() const { return ListChainNames(layout_); }

StatusOr<FileLock> Zoo::LockForWriting(const std::string& purpose) {
  if (mode() == ZooMode::kReadOnly) {
    return Error(absl::StatusCode::kFailedPrecondition, {.what = absl::StrCat("cannot ", purpose),
                                                         .where = layout_.root(),
                                                         .why = "the zoo was opened read-only"});
  }
  TESSERA_ASSIGN_OR_RETURN(FileLock lock, FileLock::Take(layout_.WriterLock(), LockKind::kExclusive,
                                                         purpose, options_.lock_wait));
  // Another process may have upgraded the zoo since it was opened.
  TESSERA_RETURN_IF_ERROR(layout_.CheckVersion());
  TESSERA_RETURN_IF_ERROR(CleanTemporaries(disk_, layout_.Temporary()));
  return lock;
}

Status Zoo::WriteChain(const ChainManifest& chain) {
  return ReplaceFile(disk_, layout_.Temporary(), layout_.Chain(chain.name),
                     CanonicalText(chain) + "\n");
}

StatusOr<Zoo::NameState> Zoo::CheckExisting(const ChainManifest& chain,
                                            ExistingChain existing) const {
  const StatusOr<ChainManifest> present = ReadChain(layout_, chain.name);
  if (present.ok() && RevisionOf(*present) == RevisionOf(chain)) return NameState::kSame;
  if (!present.ok() && absl::IsNotFound(present.status())) return NameState::kFree;
  if (existing == ExistingChain::kReplace) return NameState::kReplaced;
  if (!present.ok()) return present.status();
  return Error(absl::StatusCode::kAlreadyExists,
               {.what = absl::StrCat("the chain ", chain.name, " exists with other content"),
                .where = layout_.root(),
                .why = absl::StrCat("revision ", RevisionOf(*present).Short(), ", the new one is ",
                                    RevisionOf(chain).Short()),
                .fix = "choose another name, or replace it with --replace"});
}

Status Zoo::Remove(absl::string_view name) {
  TESSERA_RETURN_IF_ERROR(CheckChainName(name));
  TESSERA_ASSIGN_OR_RETURN(const FileLock lock, LockForWriting(absl::StrCat("remove ", name)));
  const std::string path = layout_.Chain(name);
  if (KindOfPath(path) == PathKind::kMissing) return ReadChain(layout_, name).status();
  TESSERA_RETURN_IF_ERROR(disk_.Unlink(path));
  return disk_.SyncDirectory(layout_.Chains());
}

StatusOr<ComposePiece> ParseComposePiece(absl::string_view text) {
  ComposePiece piece;
  const size_t bracket = text.find('[');
  piece.chain = std::string(text.substr(0, bracket));
  TESSERA_RETURN_IF_ERROR(CheckChainName(piece.chain));
  if (bracket == absl::string_view::npos) return piece;
  const absl::string_view range = text.substr(bracket);
  const size_t colon = range.find(':');
  const auto number = [](absl::string_view digits, size_t& value) {
    uint64_t parsed = 0;
    if (digits.empty()) return true;
    if (!absl::SimpleAtoi(digits, &parsed)) return false;
    value = parsed;
    return true;
  };
  if (range.back() != ']' || colon == absl::string_view::npos ||
      !number(range.substr(1, colon - 1), piece.begin) ||
      !number(range.substr(colon + 1, range.size() - colon - 2), piece.end)) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("the piece ", text, " is not readable"),
                  .why = "a piece is CHAIN or CHAIN[BEGIN:END], in blocks from 0, END excluded",
                  .fix = "for example base[0:41] or tuned[41:]"});
  }
  return piece;
}

}  // namespace tessera::blockzoo
