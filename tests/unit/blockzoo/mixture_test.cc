// Binding mixtures of experts and latent attention: what is refused, and how it reads.
#include <gtest/gtest.h>

#include "blockzoo/block_type.h"
#include "kernels/backend.h"
#include "tests/support/tiny_chain.h"

namespace tessera::testing {
namespace {

// The CPU's kernels less those of mixtures and latents, as a device's catalog has them.
class BareBackend final : public kernels::Backend {
 public:
  BareBackend() : cpu_(kernels::MakeCpuBackend(kernels::CpuIsa::kAuto).value()) {
    Copy<kernels::EmbedOp>();
    Copy<kernels::LinearOp>();
    Copy<kernels::QuantizeRowsOp>();
  }
  std::string name() const override { return "bare"; }
  const kernels::Catalog& catalog() const override { return catalog_; }
  StatusOr<kernels::WeightLayout> LinearLayout(kernels::DType dtype, uint64_t out,
                                               uint64_t in) const override {
    return cpu_->LinearLayout(dtype, out, in);
  }
  void PackLinear(kernels::DType dtype, uint64_t out, uint64_t in, const std::byte* canonical,
                  std::byte* packed) const override {
    cpu_->PackLinear(dtype, out, in, canonical, packed);
  }
  size_t ScratchBytes(const ContextNeeds& needs) const override {
    return cpu_->ScratchBytes(needs);
  }

 private:
  template <typename Op>
  void Copy() {
    for (const auto& entry : cpu_->catalog().Entries<Op>()) catalog_.Add(entry);
  }
  std::unique_ptr<kernels::Backend> cpu_;
  kernels::Catalog catalog_;
};

// Binds block `index` of a chain of one layer.
Status BindOn(const kernels::Backend& backend, const TinyShape& shape, size_t index) {
  MemoryWeights weights;
  const Digest identity = TinyChains(weights).Make("a", shape, {1}, 9).blocks[index];
  const blockzoo::BlockManifest manifest = weights.Block(identity).value();
  blockzoo::WeightPlacer placer(backend);
  return blockzoo::BindBlock(identity, {.manifest = manifest,
                                        .backend = backend,
                                        .source = weights,
                                        .placer = placer,
                                        .cache = {},
                                        .placement = {}})
      .status();
}

constexpr size_t kLatentAttention = 1, kMoe = 2;

Status BindMoe(const TinyShape& shape) {
  return BindOn(*kernels::MakeCpuBackend(kernels::CpuIsa::kAuto).value(), shape, kMoe);
}

void ExpectNames(const Status& status, const char* what) {
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_NE(status.message().find(what), absl::string_view::npos) << status;
}

TEST(MixtureBindingTest, ABackendWithoutTheOpsIsNamed) {
  TinyShape shape;
  shape.experts = 4;
  shape.latent_rank = 32;
  const BareBackend bare;
  ExpectNames(BindOn(bare, shape, kMoe), "no kernel for route_experts");
  ExpectNames(BindOn(bare, shape, kLatentAttention), "no kernel for latent_attention");
}

TEST(MixtureBindingTest, ExpertsThatFillNoWholeTilesAreRefused) {
  TinyShape shape;
  shape.experts = 4;
  shape.hidden = 40;
  ExpectNames(BindMoe(shape), "cannot be cut every 40 rows");
  shape.hidden = 48;
  EXPECT_TRUE(BindMoe(shape).ok());
}

TEST(MixtureBindingTest, MoreExpertsUsedThanThereAre) {
  TinyShape shape;
  shape.experts = 1;  // two are used
  const Status status = BindMoe(shape);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_NE(status.message().find("experts_used"), absl::string_view::npos) << status;
}

}  // namespace
}  // namespace tessera::testing
