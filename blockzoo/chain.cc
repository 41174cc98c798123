#include "blockzoo/chain.h"

#include <bit>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

// What the numbers of a cached state depend on besides blocks: changed when an op's arithmetic
// changes.
constexpr absl::string_view kNumericsMode = "sequential-v1";
constexpr absl::string_view kAttentionPolicy = "dense";

Status Misfit(const ChainManifest& manifest, const std::string& why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("chain \"", manifest.name, "\" cannot be bound"),
                .why = why,
                .fix = "import or compose the chain again"});
}

void AddRotary(Hasher& hasher, const RotaryTable& rotary) {
  hasher.AddU64(rotary.frequencies.size());
  for (float value : rotary.frequencies) hasher.AddU64(std::bit_cast<uint32_t>(value));
  hasher.AddU64(std::bit_cast<uint32_t>(rotary.scale));
}

}  // namespace

struct ChainBinder::Impl {
  Impl(std::shared_ptr<const kernels::Backend> chosen, const CacheChoice& choice)
      : backend(std::move(chosen)), cache(choice), placer(*backend) {}

  std::shared_ptr<const kernels::Backend> backend;
  CacheChoice cache;
  WeightPlacer placer;
  mutable std::mutex mutex;
  std::map<Digest, std::weak_ptr<const BoundBlock>> blocks;

  std::shared_ptr<const BoundBlock> Find(const Digest& identity) const {
    const std::lock_guard lock(mutex);
    const auto found = blocks.find(identity);
    return found == blocks.end() ? nullptr : found->second.lock();
  }

  // The first of two threads that bound the same block wins.
  std::shared_ptr<const BoundBlock> Keep(std::shared_ptr<const BoundBlock> block) {
    const std::lock_guard lock(mutex);
    std::weak_ptr<const BoundBlock>& slot = blocks[block->identity()];
    if (std::shared_ptr<const BoundBlock> live = slot.lock()) return live;
    slot = block;
    return block;
  }

  StatusOr<std::shared_ptr<const BoundBlock>> BindOne(const Digest& identity,
                                                      WeightSource& source) {
    if (std::shared_ptr<const BoundBlock> live = Find(identity)) return live;
    TESSERA_ASSIGN_OR_RETURN(const BlockManifest manifest, source.Block(identity));
    const BindContext context{.manifest = manifest,
                              .backend = *backend,
                              .source = source,
                              .placer = placer,
                              .cache = cache,
                              .placement = Placement()};
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<BoundBlock> block, BindBlock(identity, context));
    return Keep(std::move(block));
  }

  Status BindAll(const ChainManifest& manifest, WeightSource& source, const Progress& progress,
                 std::vector<std::shared_ptr<const BoundBlock>>& bound) {
    for (const Digest& identity : manifest.blocks) {
      TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<const BoundBlock> block, BindOne(identity, source));
      bound.push_back(std::move(block));
      if (progress) progress(bound.size(), manifest.blocks.size());
    }
    return absl::OkStatus();
  }
};

ChainBinder::ChainBinder(std::shared_ptr<const kernels::Backend> backend, const CacheChoice& cache)
    : impl_(std::make_unique<Impl>(std::move(backend), cache)) {}

ChainBinder::~ChainBinder() = default;

StatusOr<std::shared_ptr<const Chain>> ChainBinder::Bind(const ChainManifest& manifest,
                                                         WeightSource& source,
                                                         const Progress& progress) {
  auto chain = std::make_shared<Chain>();
  chain->manifest_ = manifest;
  chain->revision_ = RevisionOf(manifest);
  if (manifest.blocks.size() < 2) return Misfit(manifest, "it has fewer than two blocks");
  for (const RotarySettings& rotary : manifest.rotary) {
    TESSERA_ASSIGN_OR_RETURN(RotaryTable table, MakeRotaryTable(rotary, manifest.max_context));
    chain->rotary_tables_.push_back(std::move(table));
  }
  const Status bound = impl_->BindAll(manifest, source, progress, chain->blocks_);
  // Also where a block could not be bound: what is under way must not outlive the source.
  TESSERA_RETURN_IF_ERROR(impl_->backend->memory().Settle());
  TESSERA_RETURN_IF_ERROR(bound);
  TESSERA_RETURN_IF_ERROR(CheckOrder(*chain));
  FillLayout(*chain);
  TESSERA_RETURN_IF_ERROR(chain->layout_->Validate());
  return std::shared_ptr<const Chain>(std::move(chain));
}

Status ChainBinder::CheckOrder(const Chain& chain) {
  const ChainManifest& manifest = chain.manifest_;
  for (size_t i = 0; i < chain.blocks_.size(); ++i) {
    const BoundBlock& block = *chain.blocks_[i];
    if ((block.type() == "embedding") != (i == 0)) {
      return Misfit(manifest, "a chain has one embedding, its first block");
    }
    if (block.is_head() != (i + 1 == chain.blocks_.size())) {
      return Misfit(manifest, "a chain has one lm_head, its last block");
    }
    if (block.max_positions() != 0 && manifest.max_context > block.max_positions()) {
      return Misfit(manifest, absl::StrCat("its context is ", manifest.max_context,
                                           " tokens, its embedding knows ", block.max_positions(),
                                           " positions"));
    }
    const int rotary = block.rotary_index();
    if (rotary >= static_cast<int>(manifest.rotary.size())) {
      return Misfit(manifest, absl::StrCat("block ", i, " names rotary settings ", rotary, " of ",
                                           manifest.rotary.size()));
    }
    if (rotary >= 0 && manifest.rotary[rotary].dim != static_cast<uint32_t>(block.rotary_dim())) {
      return Misfit(manifest, absl::StrCat("block ", i, " rotates ", block.rotary_dim(),
                                           " elements of a head, its settings ",
                                           manifest.rotary[rotary].dim));
    }
  }
  return absl::OkStatus();
}

void ChainBinder::FillLayout(Chain& chain) {
  auto layout = std::make_shared<kvcache::CacheLayout>();
  std::set<Digest> seen;
  Digest digest = Hasher().AddText(kNumericsMode).AddText(kAttentionPolicy).Finish();
  for (const std::shared_ptr<const BoundBlock>& block : chain.blocks_) {
    chain.first_table_.push_back(static_cast<uint32_t>(layout->tables.size()));
    Hasher hasher;
    hasher.AddDigest(digest).AddDigest(block->identity());
    if (block->rotary_index() >= 0) {
      AddRotary(hasher, chain.rotary_tables_[static_cast<size_t>(block->rotary_index())]);
    }
    for (const kvcache::StateSpec& state : block->state()) {
      hasher.AddU64(static_cast<uint64_t>(state.kind))
          .AddU64(static_cast<uint64_t>(state.format.dtype))
          .AddU64(state.format.key_statistics ? 1 : 0);
    }
    digest = hasher.Finish();
    for (size_t group = 0; group < block->state().size(); ++group) {
      layout->tables.push_back({.state = block->state()[group],
                                .state_digest = Hasher().AddDigest(digest).AddU64(group).Finish()});
    }
    for (const BoundBlock::Mapped& mapped : block->mapped()) {
      if (seen.insert(mapped.tensor).second) chain.weight_bytes_ += mapped.bytes;
    }
  }
  chain.layout_ = std::move(layout);
}

Status ChainBinder::Pooling(const ChainManifest& manifest) const {
  return impl_->backend->catalog()
      .Find<kernels::PoolRowsOp>({.width = static_cast<int64_t>(manifest.width)})
      .status();
}

uint64_t ChainBinder::LiveWeightBytes() const {
  const std::lock_guard lock(impl_->mutex);
  std::set<Digest> seen;
  uint64_t bytes = 0;
  for (const auto& [identity, weak] : impl_->blocks) {
    const std::shared_ptr<const BoundBlock> block = weak.lock();
    if (block == nullptr) continue;
    for (const BoundBlock::Mapped& mapped : block->mapped()) {
      if (seen.insert(mapped.tensor).second) bytes += mapped.bytes;
    }
  }
  return bytes;
}

}  // namespace tessera::blockzoo
