// A zoo that is killed, or whose disk fails, at every step of every operation.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_report.h"
#include "tests/support/tiny_checkpoint.h"

namespace tessera::blockzoo {
namespace {

using testing::TempDirectory;
using testing::TinyGguf;
using testing::WriteFile;

constexpr int kKilled = 42;

ZooOptions Options(const std::string& directory, DiskHook hook) {
  return {.directory = directory,
          .mode = ZooMode::kCreate,
          .disk_hook = std::move(hook),
          .write_chunk_bytes = 5000,
          .import_threads = 1};
}

class ZooCrashTest : public ::testing::Test {
 protected:
  ZooCrashTest() {
    WriteFile(directory_.path("a.gguf"), TinyGguf({.layers = 2}).Build());
    WriteFile(directory_.path("b.gguf"), TinyGguf({.layers = 2, .seed = 2}).Build());
  }

  // Runs `work` in a process of its own, killed before its `step`th change to the disk; true when
  // it was.
  template <typename Work>
  bool KilledAt(int step, const std::string& zoo_directory, const Work& work) {
    const pid_t child = fork();
    if (child == 0) {
      int count = 0;
      auto zoo = Zoo::Open(Options(zoo_directory, [&](absl::string_view, const std::string&) {
        if (count++ == step) _exit(kKilled);
        return absl::OkStatus();
      }));
      _exit(zoo.ok() && work(**zoo).ok() ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_TRUE(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == kKilled) << "at step " << step;
    return WEXITSTATUS(status) == kKilled;
  }

  static std::unique_ptr<Zoo> OpenZoo(const std::string& directory) {
    StatusOr<std::unique_ptr<Zoo>> zoo = Zoo::Open(Options(directory, nullptr));
    EXPECT_TRUE(zoo.ok()) << zoo.status();
    return zoo.ok() ? *std::move(zoo) : nullptr;
  }

  static void ExpectSound(const Zoo& zoo) {
    const StatusOr<VerifyReport> report = zoo.Verify(nullptr);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->problems.empty()) << Render(*report);
  }

  const TempDirectory directory_;
};

TEST_F(ZooCrashTest, ImportKilledAnywhereIsSoundAndContinues) {
  const auto import = [this](Zoo& zoo) {
    return zoo.Import({.path = directory_.path("a.gguf"), .name = "a"}).status();
  };
  int step = 0;
  for (;; ++step) {
    const std::string path = directory_.path(absl::StrCat("zoo", step));
    const bool killed = KilledAt(step, path, import);
    if (std::filesystem::exists(path)) {  // as it is, before anything finishes it
      const auto seen = Zoo::Open({.directory = path, .mode = ZooMode::kReadOnly});
      ASSERT_TRUE(seen.ok()) << seen.status() << " killed at step " << step;
      ExpectSound(**seen);
      EXPECT_EQ((*seen)->Chain("a").ok(), (*seen)->Show("a").ok());
    }
    const auto zoo = OpenZoo(path);
    ASSERT_NE(zoo, nullptr) << "killed at step " << step;
    ExpectSound(*zoo);
    if (killed) {
      // The name is there only when its last rename was done; nothing half is seen.
      EXPECT_EQ(zoo->Chain("a").ok(), zoo->Show("a").ok());
    }
    const StatusOr<ImportReport> again =
        zoo->Import({.path = directory_.path("a.gguf"), .name = "a"});
    ASSERT_TRUE(again.ok()) << again.status();
    ExpectSound(*zoo);
    EXPECT_TRUE(std::filesystem::is_empty(path + "/tmp"));
    const StatusOr<GcReport> gc = zoo->Gc({});
    ASSERT_TRUE(gc.ok());
    EXPECT_EQ(gc->objects, 0u) << "killed at step " << step;
    std::filesystem::remove_all(path);
    if (!killed) break;
    // Late steps repeat the same few operations for each object.
    if (step > 60) step += 6;
  }
  EXPECT_GT(step, 100);
}

TEST_F(ZooCrashTest, RemoveAndGcKilledAnywhereAreSound) {
  for (int step = 0;; step += 3) {
    const std::string path = directory_.path("zoo");
    {
      const auto zoo = OpenZoo(path);
      ASSERT_TRUE(zoo->Import({.path = directory_.path("a.gguf"), .name = "a"}).ok());
      ASSERT_TRUE(zoo->Import({.path = directory_.path("b.gguf"), .name = "b"}).ok());
    }
    const bool killed = KilledAt(step, path, [](Zoo& zoo) {
      TESSERA_RETURN_IF_ERROR(zoo.Remove("b"));
      return zoo.Gc({}).status();
    });
    const auto zoo = OpenZoo(path);
    if (!zoo->Chain("b").ok()) {
      ASSERT_TRUE(zoo->Gc({}).ok());
    }
    ExpectSound(*zoo);
    EXPECT_TRUE(zoo->Show("a").ok());
    if (!killed) break;
  }
}

TEST_F(ZooCrashTest, MakingChainsKilledAnywhereIsSoundAndContinues) {
  const auto make = [](Zoo& zoo) -> Status {
    TESSERA_RETURN_IF_ERROR(
        zoo.Synthesise({.like = "tiny", .name = "s", .variants = 2, .shared_layers = 3}).status());
    return zoo.Quantize({.source = "a", .name = "q"}).status();
  };
  for (int step = 0;; step += 11) {
    const std::string path = directory_.path("made");
    {
      const auto zoo = OpenZoo(path);
      ASSERT_TRUE(zoo->Import({.path = directory_.path("a.gguf"), .name = "a"}).ok());
    }
    const bool killed = KilledAt(step, path, make);
    const auto zoo = OpenZoo(path);
    ExpectSound(*zoo);
    ASSERT_TRUE(make(*zoo).ok()) << "killed at step " << step;
    ExpectSound(*zoo);
    EXPECT_EQ(zoo->ChainNames()->size(), 4u);
    EXPECT_EQ(zoo->Gc({})->objects, 0u) << "killed at step " << step;
    std::filesystem::remove_all(path);
    if (!killed) break;
  }
}

TEST_F(ZooCrashTest, AFailingDiskIsACleanErrorAtEveryStep) {
  for (const auto code : {absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable}) {
    for (int step = 0;; step += step < 40 ? 1 : 7) {
      const std::string path = directory_.path("zoo");
      OpenZoo(path);
      int count = 0;
      Status failed;
      {
        const auto zoo = Zoo::Open(Options(path, [&](absl::string_view, const std::string&) {
          return count++ >= step ? Status(code, "the disk says no") : absl::OkStatus();
        }));
        ASSERT_TRUE(zoo.ok());
        failed = (*zoo)->Import({.path = directory_.path("a.gguf"), .name = "a"}).status();
      }
      const auto zoo = OpenZoo(path);
      ExpectSound(*zoo);
      EXPECT_TRUE(std::filesystem::is_empty(path + "/tmp"));
      if (failed.ok()) break;
      EXPECT_EQ(failed.code(), code);
      std::filesystem::remove_all(path);
    }
  }
}

TEST_F(ZooCrashTest, AFileSizeLimitIsACleanError) {
  const std::string path = directory_.path("zoo");
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10000, 10000};
    setrlimit(RLIMIT_FSIZE, &limit);
    auto zoo = Zoo::Open(Options(path, nullptr));
    if (!zoo.ok()) _exit(1);
    const Status status = (*zoo)->Import({.path = directory_.path("a.gguf"), .name = "a"}).status();
    _exit(absl::IsResourceExhausted(status) ? 0 : 2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  const auto zoo = OpenZoo(path);
  ExpectSound(*zoo);
  EXPECT_TRUE(zoo->ChainNames()->empty());
  EXPECT_TRUE(zoo->Import({.path = directory_.path("a.gguf"), .name = "a"}).ok());
}

TEST_F(ZooCrashTest, TheReserveIsLeftFree) {
  ZooOptions options = Options(directory_.path("zoo"), nullptr);
  options.reserve_bytes = uint64_t{1} << 60;
  const auto zoo = Zoo::Open(options);
  ASSERT_TRUE(zoo.ok());
  const Status status = (*zoo)->Import({.path = directory_.path("a.gguf"), .name = "a"}).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_NE(status.message().find("store.reserve"), absl::string_view::npos);
}

}  // namespace
}  // namespace tessera::blockzoo
