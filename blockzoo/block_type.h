// What a block is to the engine: bound weights and chosen kernels that run a launch over rows.
//
// A block type is one file under blocks/. It declares its state, binds its tensors, and runs; it
// never allocates while it runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "blockzoo/manifest.h"
#include "blockzoo/weight_placer.h"
#include "blockzoo/weight_source.h"
#include "config/foundation/digest.h"
#include "config/foundation/ids.h"
#include "config/foundation/status.h"
#include "kernels/backend.h"
#include "kernels/exec_context.h"
#include "kvcache/state_spec.h"

namespace tessera::blockzoo {

class BoundBlock;

// The rows of a launch that one block computes. A shared block is one member over all rows; private
// blocks of several chains are one member each.
struct LaunchMember {
  const BoundBlock* block = nullptr;
  int32_t row_begin = 0;
  int32_t row_count = 0;
};

// Rotary angles of every row of the step, for one rotary index: [step rows, dim / 2].
struct RotaryRows {
  const float* cosine = nullptr;
  const float* sine = nullptr;
};

// Storage for the launch parameters of one block, reserved when chains are loaded.
struct LaunchScratch {
  std::vector<kernels::LinearTask> linear;
  std::vector<kernels::NormTask> norm;
  std::vector<kernels::AttentionSinks> sinks;
  std::vector<kernels::EmbedTask> embed;
  std::vector<kernels::RouteTask> route;
  std::vector<kernels::LatentNorm> latent_norm;
  std::byte* workspace = nullptr;  // rows x the widest workspace_bytes_per_row(), 64-byte aligned

  // Room for launches of `members` members of blocks whose linear_tasks() are at most `tasks`.
  void Reserve(size_t members, size_t tasks);
};

// One block of every member over the rows of a launch. Rows are numbered 0..rows-1 within the
// launch; `step_rows` names the step's row of each. Arrays lie in the backend's memory, spans and
// what they hold in the host's.
struct Launch {
  kernels::ExecContext* context = nullptr;
  LaunchScratch* scratch = nullptr;
  std::span<const LaunchMember> members;  // ascending and gapless rows; equal signatures
  int32_t rows = 0;
  const int32_t* step_rows = nullptr;  // [rows]; null: the same row
  float* residual = nullptr;           // [step rows, width]
  const TokenId* tokens = nullptr;     // [step rows]; read by the embedding
  const int32_t* positions = nullptr;  // [step rows]; read by an embedding of positions
  std::span<const RotaryRows> rotary;  // by rotary index
  // The state of each row's own chain: where its key and value go, and what it reads.
  std::byte* arena = nullptr;
  const PageId* append_page = nullptr;    // [rows]; invalid: shared page, not written
  const uint8_t* append_slot = nullptr;   // [rows]
  kernels::AttentionPlan attention_plan;  // prepared for the block's attention_shape()
  uint32_t attention_table = 0;           // AttentionOp::Params::table
  float* logits = nullptr;                // [rows, LogitsStride(vocab)]; by the lm_head
  // Of the lm_head: its normed rows are added up by these tasks, and no logits are made.
  std::span<const kernels::PoolRowsTask> pool;
};

// A block bound to one backend. Immutable, thread-safe; shared by every chain that names it.
class BoundBlock {
 public:
  virtual ~BoundBlock() = default;

  [[nodiscard]] const Digest& identity() const { return identity_; }
  // Blocks of equal signature (type, attributes, weight types) may be members of one launch.
  [[nodiscard]] const Digest& signature() const { return signature_; }
  [[nodiscard]] const std::string& type() const { return type_; }
  [[nodiscard]] std::span<const kvcache::StateSpec> state() const { return state_; }
  [[nodiscard]] uint64_t workspace_bytes_per_row() const { return workspace_bytes_per_row_; }
  // What its attention launches have in common with others; none when it has no such state.
  [[nodiscard]] const std::optional<kernels::AttentionShape>& attention_shape() const {
    return attention_shape_;
  }
  // The launches of Linear that it makes, for who measures kernels.
  [[nodiscard]] std::span<const kernels::LinearGroup> products() const { return products_; }
  // Most tasks of one launch of Linear that a member of it may take.
  [[nodiscard]] size_t linear_tasks() const { return linear_tasks_; }
  // Widest row that a kernel of this block reads or writes, for scratch sizes.
  [[nodiscard]] uint64_t max_width() const { return max_width_; }
  // Rotary index that its rows need; -1: none.
  [[nodiscard]] int rotary_index() const { return rotary_index_; }
  // Elements of a head that its rows rotate; 0: none. Equals the dim of the chain's settings.
  [[nodiscard]] int32_t rotary_dim() const { return rotary_dim_; }
  // Positions that it has a row for; 0: any.
  [[nodiscard]] uint64_t max_positions() const { return max_positions_; }
  // Mapped weights: identity of each tensor and its bytes.
  struct Mapped {
    Digest tensor;
    uint64_t bytes;
  };
  [[nodiscard]] std::span<const Mapped> mapped() const { return mapped_; }
  // True for the lm_head: it runs over the rows that want logits only, and writes Launch::logits.
  [[nodiscard]] bool is_head() const { return is_head_; }
  // Whether Launch::pool may be set: OK for an lm_head whose backend can, else why not.
  [[nodiscard]] const Status& pooling() const { return pooling_; }

  // Engine thread only. All members have this block's signature; `launch.members[0].block` may be
  // any of them.
  virtual void Run(const Launch& launch) const = 0;

 protected:
  friend class BlockBinder;
  Digest identity_;
  Digest signature_;
  std::string type_;
  std::vector<kvcache::StateSpec> state_;
  uint64_t workspace_bytes_per_row_ = 0;
  size_t linear_tasks_ = 4;
  uint64_t max_width_ = 0;
  std::optional<kernels::AttentionShape> attention_shape_;
  std::vector<kernels::LinearGroup> products_;
  int rotary_index_ = -1;
  int32_t rotary_dim_ = 0;
  uint64_t max_positions_ = 0;
  std::vector<Mapped> mapped_;
  bool is_head_ = false;
  Status pooling_ = absl::UnimplementedError("only an lm_head adds up rows");
};

// Where a chain's blocks live: a tensor-parallel rank of a device.
struct Placement {
  int device = 0;
  int rank = 0;
  int world = 1;
};

struct CacheChoice {
  enum class KvDType : uint8_t { kAuto, kF32, kF16, kBF16, kF8 } kv_dtype = KvDType::kAuto;
  enum class KeyStatistics : uint8_t { kOff, kOn } key_statistics = KeyStatistics::kOff;
};

struct BindContext {
  const BlockManifest& manifest;
  const kernels::Backend& backend;
  WeightSource& source;
  WeightPlacer& placer;
  CacheChoice cache;
  Placement placement;
};

struct BlockType {
  const char* name = "";
  // INVALID_ARGUMENT naming the attribute or tensor, UNIMPLEMENTED naming the missing kernel.
  StatusOr<std::unique_ptr<BoundBlock>> (*bind)(const BindContext& context) = nullptr;
};

class BlockTypeRegistry {
 public:
  void Add(const BlockType& type) { types_.push_back(type); }
  [[nodiscard]] const std::vector<BlockType>& types() const { return types_; }

 private:
  std::vector<BlockType> types_;
};

// Generated: calls Register_<file> of each file in blocks/.
void RegisterBlockTypes(BlockTypeRegistry& registry);

// Binds a block by its type; UNIMPLEMENTED naming the type and the known ones when there is no
// entry.
[[nodiscard]] StatusOr<std::unique_ptr<BoundBlock>> BindBlock(const Digest& identity,
                                                              const BindContext& context);

}  // namespace tessera::blockzoo
