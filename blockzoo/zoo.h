// The block zoo: a directory in which every tensor, block and asset is stored once, by content, and
// chains are small files that name them.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blockzoo/manifest.h"
#include "blockzoo/weight_source.h"
#include "blockzoo/zoo_io.h"
#include "blockzoo/zoo_layout.h"
#include "blockzoo/zoo_lock.h"
#include "blockzoo/zoo_reports.h"
#include "blockzoo/zoo_weights.h"

namespace tessera::blockzoo {

enum class ZooMode : uint8_t {
  kReadOnly,   // writes nothing, so it serves from a directory without write permission
  kReadWrite,  // the zoo must exist
  kCreate,     // as kReadWrite; made when missing
};

struct ZooOptions {
  std::string directory;
  ZooMode mode = ZooMode::kReadWrite;
  uint64_t reserve_bytes = 0;  // free space that writing leaves (`store.reserve`)
  // What weights that are made in memory, such as synthetic ones, may take together.
  uint64_t memory_bytes = UINT64_MAX;
  std::chrono::milliseconds lock_wait{60'000};
  DiskHook disk_hook;  // tests only
  size_t write_chunk_bytes = 4 << 20;
  int import_threads = 0;  // that hash and write; 0: one for each processor
};

// Bytes done of bytes in all, as work goes on; called from the calling thread.
using ZooProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

enum class ExistingChain : uint8_t { kKeep, kReplace };

struct ImportOptions {
  std::string path;  // a GGUF file or a Hugging Face directory
  std::string name;  // of the chain
  ExistingChain existing = ExistingChain::kKeep;
  ZooProgress progress;
};

enum class ExportFormat : uint8_t { kGguf, kHuggingFace };
enum class ExistingFiles : uint8_t { kKeep, kReplace };

struct ExportOptions {
  std::string chain;
  ExportFormat format = ExportFormat::kGguf;
  std::string path;  // of the file; of a directory where there are several
  ExistingFiles existing = ExistingFiles::kKeep;
  ZooProgress progress;
};

enum class SyntheticStorage : uint8_t {
  kRecipes,  // a few bytes a tensor; its own are made at load
  kBytes,    // the bytes, as if they had been imported
};

struct SynthOptions {
  std::string like;   // a word of SyntheticModelNames()
  std::string name;   // of the chain; of several variants: "NAME-1" and so on
  uint64_t seed = 0;  // of everything
  kernels::DType dtype = kernels::DType::kBF16;  // of the matrices of the layers
  // Variants share the embedding, the lm_head and the first `shared_layers` layers; the first one
  // is what a single chain would be. 1 to 1000.
  uint64_t variants = 1;
  uint64_t shared_layers = 0;
  SyntheticStorage storage = SyntheticStorage::kRecipes;
  ExistingChain existing = ExistingChain::kKeep;
  ZooProgress progress;
};

enum class QuantizedHead : uint8_t {
  kBF16,       // the embedding's table and the lm_head become BF16
  kKeep,       // both stay as the source has them
  kQuantized,  // the lm_head has the type of the layers, the table BF16
};

struct QuantizeOptions {
  std::string source;                              // a chain
  std::string name;                                // of the new one
  kernels::DType to = kernels::DType::kF8Channel;  // BF16 or a type with planes
  // Of the ends, BF16 is what the usual FP8 and INT4 checkpoints have: the head's error goes into
  // every logit, and a table's rows are read, not multiplied, so that neither gains much.
  QuantizedHead head = QuantizedHead::kBF16;
  ExistingChain existing = ExistingChain::kKeep;
  ZooProgress progress;
};

enum class DerivedFiles : uint8_t { kKeepLive, kDropAll };
enum class GcEffect : uint8_t { kDelete, kDryRun };

struct GcOptions {
  DerivedFiles derived = DerivedFiles::kKeepLive;
  GcEffect effect = GcEffect::kDelete;
};

// Blocks [begin, end) of a chain, by position; `end` may be kToEnd.
struct ComposePiece {
  static constexpr size_t kToEnd = SIZE_MAX;
  std::string chain;
  size_t begin = 0;
  size_t end = kToEnd;
};

struct ComposeSpec {
  std::string name;
  std::vector<ComposePiece> pieces;
  ExistingChain existing = ExistingChain::kKeep;
};

// "base[0:41]" or "base" or "base[41:]": a piece as the command line writes it.
[[nodiscard]] StatusOr<ComposePiece> ParseComposePiece(absl::string_view text);

// Keeps a chain's objects from gc while it lives, also after the chain is removed or replaced.
// Released by the death of the process. A read-only zoo pins nothing (its mapped weights stay valid
// anyway).
class ZooPin {
 public:
  ZooPin() = default;
  ZooPin(ZooPin&& other) noexcept = default;
  ZooPin& operator=(ZooPin&& other) noexcept;
  ~ZooPin();

 private:
  friend class Zoo;
  std::string path_;
  OwnedFd lock_;
};

struct PinnedChain {
  ChainManifest chain;
  ZooPin pin;
};

// Thread-safe. Operations that write take the zoo's lock between processes for their duration and
// give FAILED_PRECONDITION on a read-only zoo, UNAVAILABLE when the lock stays busy,
// RESOURCE_EXHAUSTED when the disk is full. Whatever fails or is killed, the zoo still verifies.
class Zoo final : public WeightSource {
 public:
  [[nodiscard]] static StatusOr<std::unique_ptr<Zoo>> Open(ZooOptions options);

  // Reading; no lock is needed, since objects never change.
  [[nodiscard]] StatusOr<WeightHandle> Canonical(const TensorRef& tensor) override;
  [[nodiscard]] StatusOr<WeightHandle> Derived(const TensorRef& tensor, absl::string_view transform,
                                               uint64_t bytes, const Derive& derive) override;
  [[nodiscard]] StatusOr<std::optional<SyntheticRecipe>> Recipe(const TensorRef& tensor) override;
  [[nodiscard]] StatusOr<BlockManifest> Block(const Digest& block) override;
  [[nodiscard]] StatusOr<ChainManifest> Chain(absl::string_view name) const;
  [[nodiscard]] StatusOr<std::string> Asset(const Digest& asset) const;
  [[nodiscard]] StatusOr<std::vector<std::string>> ChainNames() const;
  // Reads and pins in one step, so that no gc comes between.
  [[nodiscard]] StatusOr<PinnedChain> Pin(absl::string_view name);

  [[nodiscard]] StatusOr<ZooListing> List() const;
  [[nodiscard]] StatusOr<ChainDetails> Show(absl::string_view name) const;
  [[nodiscard]] StatusOr<ChainDiff> Diff(absl::string_view a, absl::string_view b) const;
  // Re-hashes everything. OK with a report that lists every problem.
  [[nodiscard]] StatusOr<VerifyReport> Verify(const ZooProgress& progress) const;

  // ALREADY_EXISTS when the name is taken by another revision and `existing` is kKeep; the same
  // revision is OK and changes nothing. A run after one that was cut short writes only what is
  // missing.
  [[nodiscard]] StatusOr<ImportReport> Import(const ImportOptions& options);
  // Writes the files that a chain was imported from, byte for byte, at once under their names:
  // `path` appears whole or not at all. FAILED_PRECONDITION with the reason when the zoo cannot
  // give them back, UNIMPLEMENTED when they are of another format, ALREADY_EXISTS when `path` is
  // taken, DATA_LOSS when what they are made from is damaged.
  [[nodiscard]] StatusOr<ExportReport> Export(const ExportOptions& options) const;
  // Chains of a known model's shape with random weights, a byte vocabulary and no end token.
  // INVALID_ARGUMENT naming what does not fit; ALREADY_EXISTS as `Import`.
  [[nodiscard]] StatusOr<SynthReport> Synthesise(const SynthOptions& options);
  // A new chain whose matrices have another element type; vectors, tokenizer and template are the
  // source's. Equal tensors become equal ones, so chains that share go on sharing. It takes the
  // memory of one tensor at a time. INVALID_ARGUMENT naming the tensor that does not fit;
  // ALREADY_EXISTS as `Import`, after the objects that gc then finds.
  [[nodiscard]] StatusOr<QuantizeReport> Quantize(const QuantizeOptions& options);
  // A new chain from blocks of existing chains; INVALID_ARGUMENT naming what does not fit.
  [[nodiscard]] StatusOr<ChainManifest> Compose(const ComposeSpec& spec);
  // Its objects stay until gc. A damaged chain can be removed too.
  [[nodiscard]] Status Remove(absl::string_view name);
  // Removes what no chain and no pin uses. DATA_LOSS, removing nothing, when a chain or block
  // cannot be read, since what it uses is unknown then.
  [[nodiscard]] StatusOr<GcReport> Gc(const GcOptions& options);

  [[nodiscard]] ZooMode mode() const { return options_.mode; }
  [[nodiscard]] const std::string& directory() const { return layout_.root(); }
  [[nodiscard]] WeightCache::Usage InUse() { return weights_.InUse(); }

 private:
  explicit Zoo(ZooOptions options);
  [[nodiscard]] StatusOr<FileLock> LockForWriting(const std::string& purpose);
  [[nodiscard]] Status WriteChain(const ChainManifest& chain);
  // Whether a chain of that name exists with `revision`; ALREADY_EXISTS when it may not be
  // replaced.
  enum class NameState : uint8_t { kFree, kSame, kReplaced };
  [[nodiscard]] StatusOr<NameState> CheckExisting(const ChainManifest& chain,
                                                  ExistingChain existing) const;

  const ZooOptions options_;
  const ZooLayout layout_;
  const DiskWriter disk_;
  WeightCache weights_;
};

}  // namespace tessera::blockzoo
