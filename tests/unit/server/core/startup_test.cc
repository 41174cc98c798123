#include "server/core/startup.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"

namespace tessera::server {
namespace {

EngineSettings SettingsWith(DeviceKind device) {
  EngineSettings settings;
  settings.device = device;
  return settings;
}

TEST(StartupTest, TheProcessorWhereItIsNamed) {
  const auto backend = MakeBackend(SettingsWith(DeviceKind::kCpu), StoreSettings());
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_TRUE(absl::StartsWith((*backend)->name(), "cpu/")) << (*backend)->name();
  EXPECT_EQ(WhyDevice(SettingsWith(DeviceKind::kCpu)), "as engine.device says");
}

TEST(StartupTest, AutoTakesTheProcessorWhereNoDeviceWillDo) {
  EngineSettings settings = SettingsWith(DeviceKind::kAuto);
  // Of no machine, so that this holds beside a device as well.
  settings.device_index = 63;
  const auto backend = MakeBackend(settings, StoreSettings());
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_TRUE(absl::StartsWith((*backend)->name(), "cpu/")) << (*backend)->name();
  EXPECT_TRUE(absl::StrContains(WhyDevice(settings), "auto")) << WhyDevice(settings);
}

TEST(StartupTest, ADeviceThatIsNamedMustBeThere) {
  EngineSettings settings = SettingsWith(DeviceKind::kCuda);
  settings.device_index = 63;
  const auto backend = MakeBackend(settings, StoreSettings());
  EXPECT_TRUE(absl::IsUnimplemented(backend.status()) || absl::IsNotFound(backend.status()))
      << backend.status();
}

}  // namespace
}  // namespace tessera::server
