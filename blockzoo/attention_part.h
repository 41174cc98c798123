// Attention within a block: q, k and v of the normed residual stream, their own norms, rotation,
// keys and values in pages, and what the heads attended to on its way back (README.md has the
// attributes and tensors).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "blockzoo/block_parts.h"
#include "blockzoo/block_type.h"

namespace tessera::blockzoo {

class AttentionPart {
 public:
  // INVALID_ARGUMENT naming the attribute or tensor, UNIMPLEMENTED naming the missing kernel. Adds
  // what it understands to `known`.
  [[nodiscard]] Status Bind(const BindContext& context, KnownNames& known);

  // What the heads attended to, in the workspace.
  struct Computed {
    LinearInput::Rows attended;
    void* output;
  };
  // Reads the residual stream of all members' rows, and appends to their pages.
  [[nodiscard]] Computed Compute(const Launch& launch, Carver& carver) const;
  // Adds the output to the residual stream.
  void Join(const Launch& launch, const Computed& computed) const;

  [[nodiscard]] kvcache::StateSpec state() const {
    return {.kind = kvcache::StateKind::kPaged, .format = kv_};
  }
  [[nodiscard]] kernels::AttentionShape shape() const {
    return {.kv = kv_, .q_heads = q_heads_, .window = window_};
  }
  [[nodiscard]] int rotary_index() const { return rotary_index_; }
  [[nodiscard]] int32_t rotary_dim() const { return rotary_dim_; }
  [[nodiscard]] uint64_t max_width() const;
  [[nodiscard]] uint64_t workspace_bytes_per_row() const;
  [[nodiscard]] std::vector<kernels::LinearGroup> products() const;

 private:
  enum PartIndex { kQ, kK, kV, kO, kParts };
  struct Part {
    BoundWeight weight;
    BoundVector bias;
  };
  // The norm of queries or keys.
  struct HeadNorm {
    kernels::NormKind kind = kernels::NormKind::kNone;
    int32_t width = 0;
    int32_t groups = 1;
    int32_t weight_stride = 0;
    kernels::Kernel<kernels::NormOp> kernel;
  };

  [[nodiscard]] static const AttentionPart& Of(const LaunchMember& member);
  // Where the rows of q, k and v lie: columns of one buffer, as one product of all three would
  // write them, unless norms of heads want each by itself.
  struct Heads {
    void* q;
    void* k;
    void* v;
    int64_t q_stride;  // elements between rows
    int64_t kv_stride;
  };

  [[nodiscard]] static kernels::LinearTask Task(const LaunchMember& member, const Part& part,
                                                void* y, int64_t y_stride);
  [[nodiscard]] bool joins_heads() const {
    return query_norm_.kernel.run == nullptr && key_norm_.kernel.run == nullptr;
  }
  [[nodiscard]] Heads TakeHeads(Carver& carver, int64_t rows) const;
  Status BindShape(const Attributes& attributes);
  Status BindRotation(const Attributes& attributes, int64_t head_dim);
  Status BindScores(const Attributes& attributes, int64_t head_dim);
  Status BindWeights(const BindContext& context);
  Status BindHeadNorms(const BindContext& context);
  StatusOr<BoundNorm> BindHeadNorm(const BindContext& context, const std::string& kind,
                                   const char* role, int32_t heads, HeadNorm& norm) const;
  Status BindKernels(const BindContext& context);
  void RunQkv(const Launch& launch, kernels::LinearOp::Params params, const Heads& heads) const;
  void RunHeadNorm(const Launch& launch, const HeadNorm& norm, NormOf norm_of, void* x) const;
  [[nodiscard]] kernels::LinearGroup OutputProduct() const;
  [[nodiscard]] kernels::RopeAppendOp::Params Append(const Launch& launch,
                                                     const Heads& heads) const;
  void Attend(const Launch& launch, const kernels::RopeAppendOp::Params& append, void* out) const;

  int32_t width_ = 0;
  int32_t q_heads_ = 0;
  int32_t q_width_ = 0;
  int32_t kv_width_ = 0;
  int rotary_index_ = -1;
  int32_t rotary_dim_ = 0;
  kernels::RopeStyle style_ = kernels::RopeStyle::kHalf;
  float scale_ = 0;
  float softcap_ = 0;
  int32_t window_ = 0;
  NormSettings settings_;
  kernels::KvFormat kv_;
  uint64_t element_bytes_ = 0;
  BoundNorm norm_, post_norm_, q_norm_, k_norm_;
  HeadNorm query_norm_, key_norm_;
  BoundVector sinks_;
  std::array<Part, kParts> parts_;
  NormedInput norm_input_;      // q, k and v read it
  LinearInput attended_input_;  // what the heads attended to, read by o
  ResidualOutput output_;
  kernels::Kernel<kernels::RopeAppendOp> rope_kernel_;  // none where attention appends
  kernels::Kernel<kernels::AttentionOp> attention_kernel_;
};

}  // namespace tessera::blockzoo
