#include "config/foundation/log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

class LogTest : public testing::Test {
 protected:
  void SetUp() override {
    SetLogFormat(LogFormat::kJson);
    SetLogLevel(LogLevel::kInfo);
  }
  void TearDown() override {
    SetLogInstance("");
    SetLogLevel(LogLevel::kInfo);
  }
};

TEST_F(LogTest, JsonLinesKeepTypes) {
  const ScopedLogCapture capture;
  const std::string name = "m";
  LogInfo("chain_loaded", {{"chain", name},
                           {"view", absl::string_view("v")},
                           {"bytes", size_t{1} << 63},
                           {"delta", -2},
                           {"seconds", 0.5},
                           {"shared", true},
                           {"nan", std::nan("")}});
  const auto lines = capture.Lines();
  ASSERT_EQ(lines.size(), 1u);
  const auto line = nlohmann::json::parse(lines[0], nullptr, false);
  ASSERT_TRUE(line.is_object()) << lines[0];
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["event"], "chain_loaded");
  EXPECT_EQ(line["chain"], "m");
  EXPECT_EQ(line["view"], "v");
  EXPECT_EQ(line["bytes"].get<uint64_t>(), uint64_t{1} << 63);
  EXPECT_EQ(line["delta"], -2);
  EXPECT_EQ(line["seconds"], 0.5);
  EXPECT_EQ(line["shared"], true);
  EXPECT_EQ(line["nan"], "nan");
  EXPECT_EQ(line["time"].get<std::string>().size(), 24u);
}

TEST_F(LogTest, TextCannotForgeLinesOrMoveTheCursor) {
  const std::string evil =
      "x\n{\"level\":\"error\"}\r\x1b[2J\x7f\xC2\x9B\xE2\x80\xA8\xFF {} %s \"q\\";
  for (const LogFormat format : {LogFormat::kJson, LogFormat::kConsole}) {
    SetLogFormat(format);
    const ScopedLogCapture capture;
    LogInfo("e", {{"text", evil}});
    const auto lines = capture.Lines();
    ASSERT_EQ(lines.size(), 1u);
    for (const char c : lines[0]) {
      EXPECT_FALSE(static_cast<unsigned char>(c) < 0x20 || c == 0x7F) << lines[0];
    }
    EXPECT_FALSE(absl::StrContains(lines[0], "\xC2\x9B"));
    EXPECT_FALSE(absl::StrContains(lines[0], "\xE2\x80\xA8"));
    if (format == LogFormat::kJson) {
      const auto line = nlohmann::json::parse(lines[0], nullptr, false);
      ASSERT_TRUE(line.is_object());
      EXPECT_TRUE(absl::StartsWith(line["text"].get<std::string>(), "x\n{\"level\""));
      EXPECT_TRUE(absl::EndsWith(line["text"].get<std::string>(), "\xEF\xBF\xBD {} %s \"q\\"));
    }
  }
}

TEST_F(LogTest, ConsoleTextQuotesOnlyWhatNeedsIt) {
  SetLogFormat(LogFormat::kConsole);
  const ScopedLogCapture capture;
  LogWarning("disk_low", {{"path", "/var/lib"}, {"why", "a b"}, {"empty", ""}});
  EXPECT_TRUE(absl::EndsWith(capture.Lines().at(0),
                             " warning disk_low path=/var/lib why=\"a b\" empty=\"\""))
      << capture.Lines().at(0);
}

TEST_F(LogTest, LevelsAreLive) {
  const ScopedLogCapture capture;
  LogDebug("hidden");
  SetLogLevel(LogLevel::kDebug);
  LogDebug("shown");
  EXPECT_TRUE(LogEnabled(LogLevel::kDebug));
  SetLogLevel(LogLevel::kError);
  LogWarning("hidden");
  LogError("shown");
  EXPECT_EQ(capture.Lines().size(), 2u);
}

TEST_F(LogTest, TheInstanceIsOnEveryLine) {
  SetLogInstance("gpu \"a\"");
  const ScopedLogCapture capture;
  LogInfo("e");
  EXPECT_TRUE(absl::StrContains(capture.Lines().at(0), "\"instance\":\"gpu \\\"a\\\"\""));
}

TEST_F(LogTest, ThreadsDoNotMixLines) {
  const ScopedLogCapture capture;
  const auto write = [](int id) {
    for (int i = 0; i < 200; ++i) LogInfo("tick", {{"id", id}, {"text", std::string(100, 'a')}});
  };
  std::thread first(write, 1);
  std::thread second(write, 2);
  first.join();
  second.join();
  const auto lines = capture.Lines();
  EXPECT_EQ(lines.size(), 400u);
  for (const std::string& line : lines) {
    EXPECT_TRUE(nlohmann::json::parse(line, nullptr, false).is_object()) << line;
  }
}

}  // namespace
}  // namespace tessera
