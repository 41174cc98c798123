#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/status.h"
#include "kernels/backend.h"

namespace tessera::kernels {
namespace {

constexpr CpuIsa kAll[] = {CpuIsa::kAmx, CpuIsa::kAvx512, CpuIsa::kAvx2};

class CpuBackendTest : public ::testing::Test {
 protected:
  ~CpuBackendTest() override { unsetenv("TESSERA_CPU_ISA"); }
  static StatusOr<std::unique_ptr<Backend>> Named(const char* isa) {
    setenv("TESSERA_CPU_ISA", isa, 1);
    return MakeCpuBackend(CpuIsa::kAuto);
  }
  static bool Has(CpuIsa isa) {
    const std::vector<CpuIsa> isas = SupportedCpuIsas();
    return std::find(isas.begin(), isas.end(), isa) != isas.end();
  }
};

TEST_F(CpuBackendTest, EachSetIsTakenOrRefusedByName) {
  for (const CpuIsa isa : kAll) {
    for (const bool by_variable : {false, true}) {
      const auto backend = by_variable ? Named(NameOf(isa)) : MakeCpuBackend(isa);
      ASSERT_EQ(backend.ok(), Has(isa)) << NameOf(isa) << " " << backend.status();
      if (backend.ok()) {
        EXPECT_EQ((*backend)->name(), absl::StrCat("cpu/", NameOf(isa)));
      } else {
        EXPECT_EQ(backend.status().code(), absl::StatusCode::kFailedPrecondition);
        EXPECT_TRUE(absl::StrContains(backend.status().message(), NameOf(isa)));
      }
    }
  }
}

TEST_F(CpuBackendTest, AutoIsTheWidest) {
  const std::string widest = absl::StrCat("cpu/", NameOf(SupportedCpuIsas().front()));
  EXPECT_EQ(MakeCpuBackend(CpuIsa::kAuto).value()->name(), widest);
  EXPECT_EQ(Named("auto").value()->name(), widest);
}

// A setting that names a set outranks the variable.
TEST_F(CpuBackendTest, TheVariableIsOfAutoAlone) {
  const CpuIsa narrowest = SupportedCpuIsas().back();
  ASSERT_FALSE(Named("avx1024").ok());
  EXPECT_EQ(Named("avx1024").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(Named("avx1024").status().message(), "TESSERA_CPU_ISA"));
  EXPECT_EQ(MakeCpuBackend(narrowest).value()->name(), absl::StrCat("cpu/", NameOf(narrowest)));
}

// Only tiles want bf16, and only keys and values of heads go through them.
TEST(CpuBackend, KeepsKeysAndValuesInWhatItReadsFastest) {
  using Pages = Backend::KvPages;
  for (const CpuIsa isa : SupportedCpuIsas()) {
    const auto backend = MakeCpuBackend(isa).value();
    EXPECT_EQ(backend->KvDType(DType::kQ4_1, Pages::kHeads),
              isa == CpuIsa::kAmx ? DType::kBF16 : DType::kF16);
    EXPECT_EQ(backend->KvDType(DType::kQ4_1, Pages::kLatents), DType::kF16);
    EXPECT_EQ(backend->KvDType(DType::kBF16, Pages::kHeads), DType::kF32);
  }
}

}  // namespace
}  // namespace tessera::kernels
