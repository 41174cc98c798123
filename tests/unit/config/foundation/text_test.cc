#include "config/foundation/text.h"

#include <gtest/gtest.h>

#include <string>

namespace tessera {
namespace {

TEST(TextTest, Utf8CharactersAreMeasured) {
  EXPECT_EQ(Utf8CharacterBytes("a"), 1u);
  EXPECT_EQ(Utf8CharacterBytes("\xC3\xA9x"), 2u);
  EXPECT_EQ(Utf8CharacterBytes("\xE2\x82\xAC"), 3u);
  EXPECT_EQ(Utf8CharacterBytes("\xF0\x9F\x98\x80"), 4u);
  for (const char* bad : {"", "\x80", "\xC0\xAF", "\xC3", "\xC3(", "\xE0\x80\x80", "\xED\xA0\x80",
                          "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
    EXPECT_EQ(Utf8CharacterBytes(bad), 0u);
  }
}

TEST(TextTest, InvalidBytesAreFound) {
  EXPECT_FALSE(FindInvalidUtf8("a\xC3\xA9").has_value());
  EXPECT_EQ(FindInvalidUtf8("a\xC3\xA9\xFF"), 3u);
}

TEST(TextTest, CodePointsRoundTrip) {
  for (const char32_t c : {U'a', U'\x7FF', U'\x800', U'\xFFFF', U'\x10000', U'\x10FFFF'}) {
    std::string text;
    AppendUtf8(c, &text);
    EXPECT_EQ(Utf8CharacterBytes(text), text.size());
  }
  std::string text;
  AppendUtf8(0xD800, &text);
  AppendUtf8(0x110000, &text);
  EXPECT_EQ(text, "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(TextTest, QuotesEscapeAndCut) {
  EXPECT_EQ(Quoted("a\"\\\n\r\t\x01"), R"("a\"\\\n\r\t\u0001")");
  EXPECT_EQ(Quoted("ab\xC3\xA9", 3), "\"ab\"...");
  EXPECT_EQ(Quoted("\xFF"), "\"\xEF\xBF\xBD\"");
}

}  // namespace
}  // namespace tessera
