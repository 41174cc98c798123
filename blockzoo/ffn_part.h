// The feed-forward part of a block, gated or plain (README.md has the attributes and tensors).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blockzoo/block_parts.h"
#include "blockzoo/block_type.h"

namespace tessera::blockzoo {

class FfnPart {
 public:
  // The roles of its tensors begin with `prefix`. INVALID_ARGUMENT naming the attribute or tensor,
  // UNIMPLEMENTED naming the missing kernel. Adds what it understands to `known`.
  [[nodiscard]] Status Bind(const BindContext& context, const std::string& prefix,
                            KnownNames& known);

  // What the activation made, in the workspace.
  struct Computed {
    LinearInput::Rows hidden;
    void* output;
  };
  // Reads the residual stream of all members' rows.
  [[nodiscard]] Computed Compute(const Launch& launch, Carver& carver) const;
  // Adds the output to the residual stream.
  void Join(const Launch& launch, const Computed& computed) const;

  [[nodiscard]] uint64_t max_width() const;
  [[nodiscard]] uint64_t workspace_bytes_per_row() const;
  [[nodiscard]] std::vector<kernels::LinearGroup> products() const;

 private:
  struct Part {
    BoundWeight weight;
    BoundVector bias;
  };

  [[nodiscard]] static const FfnPart& Of(const LaunchMember& member);
  [[nodiscard]] static kernels::LinearTask Task(const LaunchMember& member, const Part& part,
                                                void* y);
  Status BindAttributes(const Attributes& attributes);
  Status BindWeights(const BindContext& context, const std::string& prefix);
  Status BindKernels(const BindContext& context);
  void RunGated(const Launch& launch, kernels::LinearOp::Params params, void* hidden,
                void* up) const;
  void RunGateAndUp(const Launch& launch, kernels::LinearOp::Params params, void* hidden,
                    void* up) const;

  int32_t width_ = 0;
  int32_t hidden_ = 0;
  bool gated_ = false;  // there is a gate
  kernels::ActivationKind activation_ = kernels::ActivationKind::kSilu;
  NormSettings settings_;
  uint64_t element_bytes_ = 0;
  BoundNorm norm_, post_norm_;
  Part gate_, up_, down_;
  NormedInput norm_input_;    // gate and up read it
  LinearInput hidden_input_;  // down reads it
  ResidualOutput output_;
  kernels::Kernel<kernels::GatedActivationOp> activation_kernel_;
};

}  // namespace tessera::blockzoo
