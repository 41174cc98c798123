// A chain bound to a backend: weights mapped, kernels chosen, cache layout and state digests made.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockzoo/block_type.h"
#include "blockzoo/manifest.h"
#include "blockzoo/rotary.h"
#include "blockzoo/weight_source.h"
#include "config/foundation/digest.h"
#include "config/foundation/status.h"
#include "kernels/backend.h"
#include "kvcache/state_spec.h"

namespace tessera::blockzoo {

// Immutable after binding; thread-safe.
class Chain {
 public:
  [[nodiscard]] const ChainManifest& manifest() const { return manifest_; }
  [[nodiscard]] const Digest& revision() const { return revision_; }
  [[nodiscard]] uint64_t width() const { return manifest_.width; }
  [[nodiscard]] uint64_t vocab() const { return manifest_.vocab; }
  [[nodiscard]] uint64_t max_context() const { return manifest_.max_context; }

  // In chain order; blocks().front() is the embedding and blocks().back() the lm_head.
  [[nodiscard]] const std::vector<std::shared_ptr<const BoundBlock>>& blocks() const {
    return blocks_;
  }
  // Whether final hidden states can be pooled (embeddings): UNIMPLEMENTED naming the missing
  // kernel.
  [[nodiscard]] const Status& pooling() const { return blocks_.back()->pooling(); }
  // First cache table of block b; a stateless block has the same as the next.
  [[nodiscard]] uint32_t first_table(size_t block) const { return first_table_[block]; }
  [[nodiscard]] const std::shared_ptr<const kvcache::CacheLayout>& cache_layout() const {
    return layout_;
  }
  // One for each entry of manifest().rotary.
  [[nodiscard]] const std::vector<RotaryTable>& rotary_tables() const { return rotary_tables_; }
  // Bytes of weights that this chain maps (each tensor once).
  [[nodiscard]] uint64_t weight_bytes() const { return weight_bytes_; }

 private:
  friend class ChainBinder;
  ChainManifest manifest_;
  Digest revision_;
  std::vector<std::shared_ptr<const BoundBlock>> blocks_;
  std::vector<uint32_t> first_table_;
  std::shared_ptr<const kvcache::CacheLayout> layout_;
  std::vector<RotaryTable> rotary_tables_;
  uint64_t weight_bytes_ = 0;
};

// Binds chains to one backend; blocks that live chains share are bound once. Thread-safe.
class ChainBinder {
 public:
  ChainBinder(std::shared_ptr<const kernels::Backend> backend, const CacheChoice& cache);
  ~ChainBinder();

  // Called after each block: for load progress.
  using Progress = std::function<void(size_t blocks_done, size_t blocks_total)>;
  // NOT_FOUND or DATA_LOSS when the source lacks something, UNIMPLEMENTED when the backend lacks a
  // kernel, INVALID_ARGUMENT when blocks do not fit together.
  [[nodiscard]] StatusOr<std::shared_ptr<const Chain>> Bind(const ChainManifest& manifest,
                                                            WeightSource& source,
                                                            const Progress& progress = nullptr);

  // What pooling() of the chain will say, as far as the backend alone decides it.
  [[nodiscard]] Status Pooling(const ChainManifest& manifest) const;

  // Bytes of weights mapped by all live bound blocks, each tensor once.
  [[nodiscard]] uint64_t LiveWeightBytes() const;

 private:
  struct Impl;
  static Status CheckOrder(const Chain& chain);
  static void FillLayout(Chain& chain);

  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::blockzoo
