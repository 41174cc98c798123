// What every block type binds and runs with: Linear weights, float vectors, norms, the way into the
// residual stream, workspace carving.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "blockzoo/block_type.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/quantize_rows.h"
#include "kernels/ops/residual.h"

namespace tessera::blockzoo {

// A Linear weight [out, in] in the backend's layout, with the kernel that reads it.
struct BoundWeight {
  PlacedWeight packed;
  kernels::DType dtype = kernels::DType::kF32;
  int32_t out = 0;
  int32_t in = 0;
  kernels::Kernel<kernels::LinearOp> kernel;
};

// A small vector held as float32 in the backend's memory.
class BoundVector {
 public:
  BoundVector() = default;
  explicit BoundVector(std::shared_ptr<const kernels::Buffer> values)
      : values_(std::move(values)) {}
  [[nodiscard]] bool empty() const { return values_ == nullptr; }
  // Null when empty.
  [[nodiscard]] const float* data() const {
    return empty() ? nullptr : reinterpret_cast<const float*>(values_->data());
  }

 private:
  std::shared_ptr<const kernels::Buffer> values_;
};

// The tensor of `role` as a packed weight. INVALID_ARGUMENT when missing or not [out, in].
[[nodiscard]] StatusOr<BoundWeight> BindWeight(const BindContext& context, const std::string& role,
                                               uint64_t out, uint64_t in);
// Puts the weights of some roles one after another where the backend's memory and their type allow
// it; BindWeight then finds them there while the result lives. Roles that are missing are left out.
[[nodiscard]] StatusOr<std::vector<PlacedWeight>> PlaceInOrder(
    const BindContext& context, std::initializer_list<const char*> roles);
// The tensor of `role` as floats, of shape [size] or `shape`; empty when an optional one is
// missing.
enum class Presence : uint8_t { kRequired, kOptional };
[[nodiscard]] StatusOr<BoundVector> BindVector(const BindContext& context, const std::string& role,
                                               uint64_t size, Presence presence);
[[nodiscard]] StatusOr<BoundVector> BindVector(const BindContext& context, const std::string& role,
                                               const Shape& shape, Presence presence);

// The number `name` of a block, in [low, high]; `otherwise` when it has none.
[[nodiscard]] StatusOr<double> NumberOr(const Attributes& attributes, const std::string& name,
                                        double low, double high, double otherwise);

// What a block type understands of a manifest.
struct KnownNames {
  std::set<std::string> attributes;
  std::set<std::string> roles;
};
// UNIMPLEMENTED naming an attribute or tensor that is not known: left out, it would change what the
// model computes.
[[nodiscard]] Status CheckKnown(const BindContext& context, const KnownNames& known);

// The norm of a block: attributes "norm" ("rms", which is the default, "layer" or "none": the
// residual stream as it is) and "norm_epsilon".
struct NormSettings {
  kernels::NormKind kind = kernels::NormKind::kRms;
  float epsilon = 0;
};
[[nodiscard]] StatusOr<NormSettings> NormSettingsOf(const Attributes& attributes);

struct BoundNorm {
  BoundVector weight;  // empty with kNone
  BoundVector bias;    // or empty
};
// The tensor `role` and, of a LayerNorm, `role`_bias where there is one.
[[nodiscard]] StatusOr<BoundNorm> BindNorm(const BindContext& context, const std::string& role,
                                           kernels::NormKind kind, uint64_t width);
// A norm of each member of a launch.
using NormOf = const BoundNorm& (*)(const LaunchMember& member);
// The tasks of that norm, in launch.scratch.
[[nodiscard]] std::span<const kernels::NormTask> NormTasks(const Launch& launch, NormOf norm_of);

// The dtype of keys and values for a block whose keys come from `weight`.
[[nodiscard]] kernels::DType KvDTypeFor(const BindContext& context, kernels::DType weight,
                                        kernels::Backend::KvPages pages);

// Hands out consecutive 64-byte-aligned pieces of a launch's workspace.
class Carver {
 public:
  explicit Carver(std::byte* at) : at_(at) {}
  template <typename T>
  [[nodiscard]] T* Take(uint64_t count) {
    T* piece = reinterpret_cast<T*>(at_);
    at_ += (count * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  // `count` activations.
  [[nodiscard]] void* TakeActivations(uint64_t count, uint64_t element_bytes) {
    return Take<std::byte>(count * element_bytes);
  }
  [[nodiscard]] kernels::QuantizedRows TakeQuantized(uint64_t rows, uint64_t width);

 private:
  std::byte* at_;
};

// Workspace bytes a row for one piece of `width` activations, alignment included.
[[nodiscard]] constexpr uint64_t RowBytes(uint64_t element_bytes, uint64_t width) {
  return width * element_bytes + 64;
}
// The same for a quantized row of `width`.
[[nodiscard]] constexpr uint64_t QuantizedBytes(uint64_t width) {
  return width + width / kernels::kQuantGroup * 8 + 3 * 64;
}

// Rows of activations that Linears read, also on the int8 grid where one of their weights wants it.
class LinearInput {
 public:
  // UNIMPLEMENTED when a reader wants what the backend lacks.
  [[nodiscard]] Status Bind(const BindContext& context, int32_t width,
                            std::span<BoundWeight* const> readers);
  [[nodiscard]] uint64_t workspace_bytes_per_row() const {
    return RowBytes(element_bytes_, static_cast<uint64_t>(width_)) +
           (quantize_.run != nullptr ? QuantizedBytes(static_cast<uint64_t>(width_)) : 0);
  }
  // Storage for `rows` rows; `x` is to be filled.
  struct Rows {
    void* x;
    kernels::QuantizedRows q8;
  };
  [[nodiscard]] Rows Take(Carver& carver, int64_t rows) const;
  // Whether a reader wants `q8`.
  [[nodiscard]] bool quantizes() const { return quantize_.run != nullptr; }
  // What the readers are given, once `x` and, where it quantizes, `q8` are filled.
  [[nodiscard]] static kernels::Activation Of(const Rows& rows) {
    return {.x = rows.x, .q8 = rows.q8};
  }
  // The same once `x` alone is filled.
  [[nodiscard]] kernels::Activation Ready(const Launch& launch, const Rows& rows) const;

 private:
  uint64_t element_bytes_ = 0;
  int32_t width_ = 0;
  kernels::Kernel<kernels::QuantizeRowsOp> quantize_;
};

// A norm over the residual stream whose output only Linears read: part of their launches where the
// backend can, a launch of its own where not.
class NormedInput {
 public:
  // Also chooses again the kernels of `readers`; with `gated`, of a gate that has an up weight.
  [[nodiscard]] Status Bind(const BindContext& context, int32_t width, const NormSettings& norm,
                            bool gated, std::span<BoundWeight* const> readers);
  [[nodiscard]] uint64_t workspace_bytes_per_row() const {
    return input_.workspace_bytes_per_row();
  }
  [[nodiscard]] LinearInput::Rows Take(Carver& carver, int64_t rows) const {
    return input_.Take(carver, rows);
  }
  // True when the readers' kernels also norm: Begin then leaves its rows empty.
  [[nodiscard]] bool fused() const { return fused_; }
  // True when the readers' kernels also gate.
  [[nodiscard]] bool gates() const { return gates_; }
  // The parameters that launches of the readers begin with.
  [[nodiscard]] kernels::LinearOp::Params Begin(const Launch& launch, const LinearInput::Rows& rows,
                                                NormOf norm_of) const;

 private:
  LinearInput input_;
  int32_t width_ = 0;
  NormSettings settings_;
  bool fused_ = false;
  bool gates_ = false;
  kernels::Kernel<kernels::NormOp> norm_;
};

// How the last product of a block joins the residual stream: it adds itself, or, where its output
// is normed or scaled before, goes there by way of activations.
class ResidualOutput {
 public:
  // `post_norm`: the output has a norm of its own, LayerNorm where the block's is one, else RMS.
  // The attribute "residual_scale" multiplies the output.
  [[nodiscard]] Status Bind(const BindContext& context, int32_t width, const NormSettings& norm,
                            bool post_norm);
  [[nodiscard]] uint64_t workspace_bytes_per_row() const {
    return adds_itself() ? 0 : RowBytes(element_bytes_, static_cast<uint64_t>(width_));
  }
  [[nodiscard]] kernels::Epilogue epilogue() const {
    return adds_itself() ? kernels::Epilogue::kResidual : kernels::Epilogue::kStore;
  }
  // Where the product's tasks write.
  [[nodiscard]] void* Take(const Launch& launch, Carver& carver) const;
  // Runs the product whose `params` have input and tasks; `made` is what Take gave.
  void Run(const Launch& launch, const kernels::Kernel<kernels::LinearOp>& product,
           kernels::LinearOp::Params params, void* made, NormOf norm_of) const;

 private:
  [[nodiscard]] bool adds_itself() const { return residual_.run == nullptr; }

  int32_t width_ = 0;
  uint64_t element_bytes_ = 0;
  NormSettings settings_;
  float scale_ = 1.0f;
  kernels::Kernel<kernels::NormOp> norm_;
  kernels::Kernel<kernels::ResidualOp> residual_;
};
// The kind that the norm of a block's output has.
[[nodiscard]] kernels::NormKind PostNormKind(kernels::NormKind input);

}  // namespace tessera::blockzoo
