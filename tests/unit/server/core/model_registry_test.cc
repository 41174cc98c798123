#include "server/core/model_registry.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <mutex>
#include <thread>

#include "tests/unit/server/core/core_fixture.h"

namespace tessera::server {
namespace {

using testing::ConditionOf;
using testing::FakeSource;

// A call that waits for its model.
struct Waiting {
  std::promise<StatusOr<ModelPtr>> promise;
  std::future<StatusOr<ModelPtr>> future = promise.get_future();
  ModelRegistry::Ready Ready() {
    return [this](StatusOr<ModelPtr> model) { promise.set_value(std::move(model)); };
  }
  bool done() { return future.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
  StatusOr<ModelPtr> Get() {
    if (future.wait_for(std::chrono::seconds(30)) != std::future_status::ready) {
      return absl::DeadlineExceededError("no answer for 30 s");
    }
    return future.get();
  }
};

class ModelRegistryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ModelRegistry::Options options;
    options.clock = &clock_;
    registry_ = std::make_unique<ModelRegistry>(&source_, options);
  }
  void TearDown() override {
    source_.Release();
    registry_.reset();
  }

  StatusOr<ModelPtr> Acquire(const std::string& name) {
    Waiting waiting;
    registry_->Acquire(name, nullptr, waiting.Ready());
    return waiting.Get();
  }
  StatusOr<ModelPtr> Reload(const std::string& name) {
    Waiting waiting;
    registry_->Reload(name, nullptr, waiting.Ready());
    return waiting.Get();
  }
  ModelInfo Info(const std::string& name) {
    for (ModelInfo& info : registry_->List()) {
      if (info.name == name) return std::move(info);
    }
    ADD_FAILURE() << name << " is not listed";
    return {};
  }

  // The loader lets go of a model just after it has answered.
  void WaitForUsers(const std::string& name, uint32_t users) {
    for (int i = 0; i < 6000 && Info(name).users != users; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    ASSERT_EQ(Info(name).users, users);
  }

  ManualClock clock_;
  FakeSource source_;
  std::unique_ptr<ModelRegistry> registry_;
};

TEST_F(ModelRegistryTest, LoadsOnFirstUseAndOnce) {
  EXPECT_EQ(Info("a").state, ModelState::kUnloaded);
  EXPECT_EQ(Info("a").summary.revision, "described");
  EXPECT_EQ(source_.loads("a"), 0);
  const StatusOr<ModelPtr> first = Acquire("a");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->revision, "a1");
  const StatusOr<ModelPtr> second = Acquire("a");
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(source_.loads("a"), 1);
  EXPECT_EQ(source_.loads("b"), 0);
  EXPECT_EQ(Info("a").state, ModelState::kReady);
  EXPECT_EQ(Info("a").summary.revision, "a1");
}

TEST_F(ModelRegistryTest, AnUnknownNameIsNotFoundAtOnce) {
  Waiting waiting;
  registry_->Acquire("c", nullptr, waiting.Ready());
  ASSERT_TRUE(waiting.done());
  EXPECT_EQ(ConditionOf(waiting.Get().status()), Condition::kModelNotFound);
  EXPECT_EQ(ConditionOf(registry_->Check("c")), Condition::kModelNotFound);
  EXPECT_TRUE(registry_->Check("a").ok());
  EXPECT_EQ(ConditionOf(Reload("c").status()), Condition::kModelNotFound);
  EXPECT_EQ(ConditionOf(registry_->Unload("c", [] {}).status()), Condition::kModelNotFound);
  EXPECT_EQ(registry_->List().size(), 2u);
}

TEST_F(ModelRegistryTest, AllWhoWaitGetTheSameLoadAndItsProgress) {
  source_.Hold();
  std::atomic<int> progress{0};
  std::vector<std::unique_ptr<Waiting>> waiting;
  for (int i = 0; i < 5; ++i) {
    waiting.push_back(std::make_unique<Waiting>());
    registry_->Acquire(
        "a",
        [&](uint32_t done, uint32_t total) {
          EXPECT_EQ(done, 1u);
          EXPECT_EQ(total, 4u);
          ++progress;
        },
        waiting.back()->Ready());
  }
  source_.WaitForLoad("a", 1);
  EXPECT_EQ(Info("a").state, ModelState::kLoading);
  for (const auto& one : waiting) EXPECT_FALSE(one->done());
  source_.Release();
  std::vector<ModelPtr> models;
  for (const auto& one : waiting) {
    const StatusOr<ModelPtr> model = one->Get();
    ASSERT_TRUE(model.ok());
    models.push_back(*model);
  }
  for (const ModelPtr& model : models) EXPECT_EQ(model, models[0]);
  EXPECT_EQ(source_.loads("a"), 1);
  EXPECT_EQ(progress, 5);
  EXPECT_EQ(Info("a").blocks_done, 1u);
  EXPECT_EQ(Info("a").blocks_total, 4u);
}

TEST_F(ModelRegistryTest, AReloadLeavesTheOldChainToItsHolders) {
  StatusOr<ModelPtr> old = Acquire("a");
  ASSERT_TRUE(old.ok());
  const ChainId old_chain = (*old)->chain_id;
  source_.Hold();
  Waiting reload;
  registry_->Reload("a", nullptr, reload.Ready());
  source_.WaitForLoad("a", 2);
  // While it loads, requests get what is there.
  EXPECT_EQ(*Acquire("a"), *old);
  source_.Release();
  const StatusOr<ModelPtr> fresh = reload.Get();
  ASSERT_TRUE(fresh.ok());
  EXPECT_EQ((*fresh)->revision, "a2");
  EXPECT_NE((*fresh)->chain_id, old_chain);
  EXPECT_EQ(*Acquire("a"), *fresh);
  EXPECT_EQ((*old)->revision, "a1");
  EXPECT_TRUE(source_.removed().empty());
  EXPECT_EQ(Info("a").retiring, 1u);
  *old = nullptr;
  EXPECT_EQ(source_.removed(), std::vector<std::string>{"a1"});
  EXPECT_EQ(Info("a").retiring, 0u);
}

TEST_F(ModelRegistryTest, AReloadThatFailsLeavesWhatWasThere) {
  const StatusOr<ModelPtr> old = Acquire("a");
  source_.Fail("a", absl::DataLossError("object 12 is damaged"));
  const StatusOr<ModelPtr> reload = Reload("a");
  // The operator reads why.
  EXPECT_EQ(reload.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(*Acquire("a"), *old);
  EXPECT_EQ(Info("a").state, ModelState::kReady);
  EXPECT_EQ(Info("a").error.code(), absl::StatusCode::kDataLoss);
}

TEST_F(ModelRegistryTest, AFailedLoadIsToldWithoutItsReasonAndNotTriedAtOnce) {
  source_.Fail("a", absl::NotFoundError("/var/lib/secret is missing"));
  for (int i = 0; i < 3; ++i) {
    const Status status = Acquire("a").status();
    EXPECT_EQ(ConditionOf(status), Condition::kModelFailed);
    EXPECT_EQ(status.ToString().find("secret"), std::string::npos);
  }
  EXPECT_EQ(source_.loads("a"), 1);
  EXPECT_EQ(Info("a").state, ModelState::kFailed);
  EXPECT_EQ(Info("a").error.message(), "/var/lib/secret is missing");

  source_.Mend("a");
  clock_.Advance(std::chrono::seconds(10) - Duration(1));
  EXPECT_EQ(ConditionOf(Acquire("a").status()), Condition::kModelFailed);
  EXPECT_EQ(source_.loads("a"), 1);
  clock_.Advance(Duration(1));
  EXPECT_TRUE(Acquire("a").ok());
  EXPECT_EQ(source_.loads("a"), 2);
  EXPECT_TRUE(Info("a").error.ok());
}

TEST_F(ModelRegistryTest, AReloadIsTheWayBackFromAFailure) {
  source_.Fail("a", absl::InternalError("x"));
  EXPECT_FALSE(Acquire("a").ok());
  source_.Mend("a");
  EXPECT_TRUE(Reload("a").ok());
  EXPECT_TRUE(Acquire("a").ok());
}

TEST_F(ModelRegistryTest, UnloadWaitsForTheLastHolder) {
  StatusOr<ModelPtr> held = Acquire("a");
  WaitForUsers("a", 1);
  std::atomic<int> done{0};
  const auto chain = registry_->Unload("a", [&] { ++done; });
  ASSERT_TRUE(chain.ok());
  EXPECT_EQ(*chain, (*held)->chain_id);
  EXPECT_EQ(done, 0);
  EXPECT_EQ(Info("a").state, ModelState::kDraining);
  EXPECT_EQ(ConditionOf(Acquire("a").status()), Condition::kDraining);
  EXPECT_EQ(ConditionOf(Reload("a").status()), Condition::kDraining);
  ASSERT_TRUE(registry_->Unload("a", [&] { ++done; }).ok());  // both are told
  *held = nullptr;
  EXPECT_EQ(done, 2);
  EXPECT_EQ(source_.removed(), std::vector<std::string>{"a1"});
  EXPECT_EQ(Info("a").state, ModelState::kUnloaded);
  // It can come back.
  EXPECT_EQ((*Acquire("a"))->revision, "a2");
}

TEST_F(ModelRegistryTest, UnloadWithoutHoldersIsDoneAtOnce) {
  ASSERT_TRUE(Acquire("a").ok());
  WaitForUsers("a", 0);
  bool done = false;
  ASSERT_TRUE(registry_->Unload("a", [&] { done = true; }).ok());
  EXPECT_TRUE(done);
  EXPECT_EQ(Info("a").state, ModelState::kUnloaded);
  done = false;
  const auto never_loaded = registry_->Unload("b", [&] { done = true; });
  ASSERT_TRUE(never_loaded.ok());
  EXPECT_EQ(*never_loaded, std::nullopt);
  EXPECT_TRUE(done);
}

TEST_F(ModelRegistryTest, UnloadWhileItLoadsIsRefused) {
  source_.Hold();
  Waiting waiting;
  registry_->Acquire("a", nullptr, waiting.Ready());
  source_.WaitForLoad("a", 1);
  EXPECT_EQ(registry_->Unload("a", [] {}).status().code(), absl::StatusCode::kFailedPrecondition);
  source_.Release();
  EXPECT_TRUE(waiting.Get().ok());
}

TEST_F(ModelRegistryTest, MakesRoomByDroppingWhatIsIdleLongest) {
  FakeSource source({"a", "b", "c", "d"});
  source.set_capacity(2);
  ModelRegistry registry(&source, {});
  const auto acquire = [&registry](const std::string& name) {
    Waiting waiting;
    registry.Acquire(name, nullptr, waiting.Ready());
    return waiting.Get();
  };
  ASSERT_TRUE(acquire("a").ok());
  ASSERT_TRUE(acquire("b").ok());
  ASSERT_TRUE(acquire("a").ok());  // b is older now
  StatusOr<ModelPtr> c = acquire("c");
  ASSERT_TRUE(c.ok());
  EXPECT_EQ(source.removed(), std::vector<std::string>{"b1"});
  // What a request holds stays.
  StatusOr<ModelPtr> d = acquire("d");
  ASSERT_TRUE(d.ok());
  EXPECT_EQ(source.removed(), (std::vector<std::string>{"b1", "a1"}));
  const Status full = acquire("a").status();
  EXPECT_EQ(full.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(ReportOf(full).details.retry_after.has_value());
}

TEST_F(ModelRegistryTest, TheListenerSeesEveryState) {
  std::mutex mutex;
  std::vector<std::string> seen;
  registry_->SetListener([&](const std::string& name, ModelState state) {
    const std::lock_guard lock(mutex);
    seen.push_back(absl::StrCat(name, " ", NameOf(state)));
  });
  ASSERT_TRUE(Acquire("a").ok());
  WaitForUsers("a", 0);
  ASSERT_TRUE(registry_->Unload("a", [] {}).ok());
  source_.Fail("b", absl::InternalError("x"));
  EXPECT_FALSE(Acquire("b").ok());
  registry_->SetListener(nullptr);
  EXPECT_EQ(seen, (std::vector<std::string>{"a loading", "a ready", "a draining", "a unloaded",
                                            "b loading", "b failed"}));
}

TEST_F(ModelRegistryTest, ItsEndFailsWhatWaits) {
  source_.Hold();
  Waiting loading, queued;
  registry_->Acquire("a", nullptr, loading.Ready());
  source_.WaitForLoad("a", 1);
  registry_->Acquire("b", nullptr, queued.Ready());
  std::thread end([this] { registry_.reset(); });
  source_.Release();
  end.join();
  // The load under way ended; the other never began, or ended, too.
  EXPECT_TRUE(loading.Get().ok());
  const StatusOr<ModelPtr> other = queued.Get();
  if (!other.ok()) {
    EXPECT_EQ(ConditionOf(other.status()), Condition::kDraining);
  }
}

TEST_F(ModelRegistryTest, AModelMayOutliveTheRegistry) {
  StatusOr<ModelPtr> held = Acquire("a");
  registry_.reset();
  EXPECT_TRUE(source_.removed().empty());
  *held = nullptr;
  EXPECT_EQ(source_.removed(), std::vector<std::string>{"a1"});
}

}  // namespace
}  // namespace tessera::server
