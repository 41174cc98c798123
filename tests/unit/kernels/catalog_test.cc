#include "kernels/catalog.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/backend.h"
#include "kernels/cpu/ops/random.h"

namespace tessera::kernels {
namespace {

TEST(CatalogTest, ErrorListsRequiredSupportedAndMissing) {
  const auto backend = MakeCpuBackend(CpuIsa::kAuto).value();
  const auto found =
      backend->catalog().Find<LinearOp>({.weight = DType::kQ4_1, .in = 33, .out = 7});
  ASSERT_EQ(found.status().code(), absl::StatusCode::kUnimplemented);
  const std::string text(found.status().message());
  EXPECT_NE(text.find("no kernel for linear"), std::string::npos) << text;
  EXPECT_NE(text.find("weight Q4_1 [7, 33]"), std::string::npos) << text;
  EXPECT_NE(text.find("linear.q4_1 lacks in 33 (a multiple of 32)"), std::string::npos) << text;
  EXPECT_NE(text.find("linear.f32 lacks weight Q4_1"), std::string::npos) << text;
}

TEST(CatalogTest, CheapestOfThoseThatSupportWins) {
  Catalog catalog;
  const auto run = [](ExecContext&, const SampleOp::Params&) {};
  const auto fits = [](const SampleOp::Desc&) { return std::string(); };
  const auto lacks = [](const SampleOp::Desc&) { return std::string("everything"); };
  catalog.Add(KernelEntry<SampleOp>{{run, "dear"}, 5, fits});
  catalog.Add(KernelEntry<SampleOp>{{run, "cheap"}, 2, fits});
  catalog.Add(KernelEntry<SampleOp>{{run, "unfit"}, 1, lacks});
  EXPECT_STREQ(catalog.Find<SampleOp>({.vocab = 5}).value().name, "cheap");
}

template <typename Op>
void ExpectComplete(const Catalog& catalog, std::set<std::string>* names) {
  EXPECT_FALSE(catalog.Entries<Op>().empty()) << Op::kName;
  for (const KernelEntry<Op>& entry : catalog.Entries<Op>()) {
    EXPECT_NE(entry.kernel.run, nullptr);
    EXPECT_NE(entry.missing, nullptr);
    EXPECT_TRUE(names->insert(entry.kernel.name).second) << entry.kernel.name << " twice";
    EXPECT_EQ(std::string(entry.kernel.name).rfind(Op::kName, 0), 0u) << entry.kernel.name;
    EXPECT_FALSE(entry.missing({}).empty() && std::string(Op::kName) != "gated_activation")
        << entry.kernel.name << " takes an empty descriptor";
  }
}

TEST(CatalogTest, EveryOpHasAKernelOnEveryInstructionSet) {
  for (const CpuIsa isa : SupportedCpuIsas()) {
    const auto backend = MakeCpuBackend(isa).value();
    const Catalog& catalog = backend->catalog();
    EXPECT_EQ(backend->name(), std::string("cpu/") + NameOf(isa));
    std::set<std::string> names;
    ExpectComplete<EmbedOp>(catalog, &names);
    ExpectComplete<NormOp>(catalog, &names);
    ExpectComplete<QuantizeRowsOp>(catalog, &names);
    ExpectComplete<LinearOp>(catalog, &names);
    ExpectComplete<RopeAppendOp>(catalog, &names);
    ExpectComplete<AttentionOp>(catalog, &names);
    ExpectComplete<GatedActivationOp>(catalog, &names);
    ExpectComplete<PageStatsOp>(catalog, &names);
    ExpectComplete<SampleOp>(catalog, &names);
    ExpectComplete<RouteExpertsOp>(catalog, &names);
    ExpectComplete<GatherRowsOp>(catalog, &names);
    ExpectComplete<ClampedSwigluOp>(catalog, &names);
    ExpectComplete<CombineExpertsOp>(catalog, &names);
    ExpectComplete<LatentAppendOp>(catalog, &names);
    ExpectComplete<LatentAttentionOp>(catalog, &names);
    ExpectComplete<ResidualOp>(catalog, &names);
    ExpectComplete<ScaleLogitsOp>(catalog, &names);
    ExpectComplete<PoolRowsOp>(catalog, &names);
  }
}

TEST(BackendTest, LayoutsAreRefusedByName) {
  const auto backend = MakeCpuBackend(CpuIsa::kAuto).value();
  const auto odd = backend->LinearLayout(DType::kQ8_0, 16, 33);
  EXPECT_EQ(odd.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(odd.status().message().find("Q8_0"), absl::string_view::npos);
  EXPECT_FALSE(backend->LinearLayout(DType::kF32, 0, 16).ok());
  EXPECT_FALSE(backend->LinearLayout(DType::kF32, uint64_t{1} << 40, uint64_t{1} << 39).ok());
}

// The published test vectors of Philox4x32-10.
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(cpu::Philox({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(cpu::Philox({ones, ones, ones, ones}, {ones, ones}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

}  // namespace
}  // namespace tessera::kernels
