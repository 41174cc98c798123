#include "blockzoo/import/finite.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace tessera::blockzoo {
namespace {

using kernels::DType;

// Each of the elements alone is infinite or none at all, at every place of an odd length.
template <typename Bits>
void FindsEach(DType dtype, Bits exponent) {
  std::mt19937 random(3);
  std::vector<Bits> values(61);
  for (Bits& value : values) {
    value = static_cast<Bits>(random());
    if ((value & exponent) == exponent) value ^= exponent;
  }
  const auto first = [&] {
    return FirstNotFinite(dtype, std::as_bytes(std::span<const Bits>(values)));
  };
  EXPECT_EQ(first(), std::nullopt);
  for (size_t i = 0; i < values.size(); ++i) {
    const Bits kept = values[i];
    for (const Bits broken :
         {exponent, static_cast<Bits>(~Bits{0}), static_cast<Bits>(kept | exponent)}) {
      values[i] = broken;
      EXPECT_EQ(first(), i * sizeof(Bits)) << +broken;
    }
    // The largest finite number.
    values[i] = static_cast<Bits>(~Bits{0} ^ (exponent & (~exponent + 1)));
    EXPECT_EQ(first(), std::nullopt) << i;
    values[i] = kept;
  }
}

TEST(Finite, FindsInfinitiesAndNansAtEveryPlace) {
  FindsEach<uint32_t>(DType::kF32, 0x7f800000);
  FindsEach<uint16_t>(DType::kF16, 0x7c00);
  FindsEach<uint16_t>(DType::kBF16, 0x7f80);
}

}  // namespace
}  // namespace tessera::blockzoo
