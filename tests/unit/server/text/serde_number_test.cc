#include "server/text/serde_number.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tessera::server {
namespace {

// What `tokenizers` 0.23 makes of them as scores.
TEST(SerdeNumber, IsTheDigitsAsAnIntegerOverAPowerOfTen) {
  EXPECT_EQ(SerdeNumber("-9.876543210123456"), -9.876543210123456);
  EXPECT_EQ(SerdeNumber("-13.100000000000001"), -13.1);  // one unit off the nearest
  EXPECT_EQ(SerdeNumber("-3.4665732383728027"), -3.4665732383728027);
  EXPECT_EQ(SerdeNumber("1E+5"), 1e5);
  EXPECT_EQ(SerdeNumber("-1.7976931348623157e2"), -179.76931348623157);
  EXPECT_TRUE(std::signbit(SerdeNumber("-0.0")));
}

TEST(SerdeNumber, DigitsBeyond64BitsArePlaces) {
  EXPECT_EQ(SerdeNumber("-123456789012345678901234567890"), -0x1.8ee90ff6c373ep+96);
  EXPECT_EQ(SerdeNumber("-12345678901234567890123.75"), -0x1.4ea15b273b38ap+73);
  EXPECT_EQ(SerdeNumber("0.12345678901234567890123"), 0x1.f9add3746f65fp-4);
  EXPECT_EQ(SerdeNumber("18446744073709551615.9"), 0x1p+64);
  EXPECT_EQ(SerdeNumber("1844674407370955161.59"), 0x1.999999999999ap+60);
}

TEST(SerdeNumber, HasTheRangeOfADouble) {
  EXPECT_EQ(SerdeNumber("2.2250738585072014e-300"), 0x1.7d784p-996);
  EXPECT_EQ(SerdeNumber("4.9e-324"), 0x1p-1074);
  EXPECT_EQ(SerdeNumber("1e-400"), 0);
  EXPECT_EQ(SerdeNumber("1e-99999999999999999999"), 0);
  EXPECT_EQ(SerdeNumber("0e99999999999999999999"), 0);
  EXPECT_TRUE(std::isinf(SerdeNumber("1e400")));
}

}  // namespace
}  // namespace tessera::server
