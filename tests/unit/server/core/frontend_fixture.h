// A frontend over a real engine and tiny chains, and a reader of one request.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/core/frontend.h"
#include "server/core/output_pump.h"
#include "tests/support/engine_fixture.h"
#include "tests/unit/server/core/core_fixture.h"

namespace tessera::testing {

// Models that run: chains of random weights with the tokenizer of bytes.
class ChainSource final : public FakeSource {
 public:
  ChainSource(scheduler::Engine* engine, std::shared_ptr<const blockzoo::Chain> chain)
      : engine_(engine), chain_(std::move(chain)) {}

 protected:
  StatusOr<std::unique_ptr<server::LoadedModel>> Make(const std::string& name,
                                                      ChainId id) override {
    std::unique_ptr<server::LoadedModel> model = MakeByteModel(name);
    model->chain_id = id;
    model->chain = chain_;
    model->max_context = chain_->max_context();
    TESSERA_RETURN_IF_ERROR(
        engine_->AddChain(id, {.name = name, .chain = chain_, .tokens = model->tokens}));
    return model;
  }
  void Removed(const server::LoadedModel& model) override {
    engine_->RemoveChain(model.chain_id, [] {});
  }

 private:
  scheduler::Engine* const engine_;
  const std::shared_ptr<const blockzoo::Chain> chain_;
};

// Takes everything as it comes, or nothing while it is paused.
class BatchReader final : public server::EventSink {
 public:
  enum class Mode { kReading, kPaused };
  explicit BatchReader(Mode mode = Mode::kReading) : mode_(mode) {}

  void OnReady(const std::shared_ptr<server::RequestHandle>& handle) override {
    const std::lock_guard lock(mutex_);
    ++calls_;
    thread_ = std::this_thread::get_id();
    if (mode_ == Mode::kReading) Read(*handle);
    changed_.notify_all();
  }

  void Resume(server::RequestHandle& handle) {
    const std::lock_guard lock(mutex_);
    mode_ = Mode::kReading;
    Read(handle);
    changed_.notify_all();
  }

  // False after 30 s without `done`, which is asked under the reader's lock.
  template <typename Done>
  bool WaitFor(const Done& done) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), done);
  }
  bool WaitForEnd() {
    return WaitFor([this] { return ended_; });
  }
  bool WaitForTokens(uint32_t count) {
    return WaitFor([this, count] { return tokens_ >= count || ended_; });
  }

  // After the end.
  [[nodiscard]] const Status& error() const { return error_; }
  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] uint32_t tokens() const { return tokens_; }
  [[nodiscard]] const std::vector<server::OutputFinished>& finished() const { return finished_; }
  [[nodiscard]] const std::optional<server::OutputStarted>& started() const { return started_; }
  [[nodiscard]] const std::vector<server::OutputProgress>& progress() const { return progress_; }
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] std::thread::id thread() const { return thread_; }
  uint32_t calls() {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

 private:
  void Read(server::RequestHandle& handle) {
    server::OutputBatch batch;
    while (handle.Take(batch)) {
      EXPECT_FALSE(ended_) << "something followed the end";
      if (batch.started) started_ = batch.started;
      if (batch.progress) progress_.push_back(*batch.progress);
      for (const server::OutputDelta& delta : batch.deltas) {
        text_ += delta.text;
        tokens_ += delta.token_count;
      }
      for (const server::OutputFinished& one : batch.finished) finished_.push_back(one);
      if (batch.error) error_ = *batch.error;
      ended_ = batch.ends();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Mode mode_;
  uint32_t calls_ = 0;
  std::thread::id thread_;
  bool ended_ = false;
  Status error_;
  std::string text_;
  uint32_t tokens_ = 0;
  std::vector<server::OutputFinished> finished_;
  std::optional<server::OutputStarted> started_;
  std::vector<server::OutputProgress> progress_;
};

class FrontendFixture : public EngineFixture {
 protected:
  static constexpr uint32_t kContext = 20'000;
  static constexpr uint32_t kEndless = 19'000;  // tokens that no test waits for

  void TearDown() override {
    if (source_) source_->Release();
    if (timer_) timer_->Stop();
    frontend_.reset();
    if (pool_) pool_->Stop();
    registry_.reset();
    engine_.reset();
  }

  // Everything but the settings has its daemon's shape.
  void StartFrontend(scheduler::EngineOptions options = {}, Settings settings = {}) {
    pool_ = std::make_unique<server::WorkPool>(server::WorkPool::Options{.max_offered = 4});
    options.tell = [pool = pool_.get()](auto& ready) { server::PumpOutput(*pool, ready); };
    Start(options);
    const TinyShape shape{.vocab = kByteVocab, .max_context = kContext};
    chain_ = Bind(tiny_.Make("bytes", shape, {1, 2, 3}, 1));
    ASSERT_NE(chain_, nullptr);
    source_ = std::make_unique<ChainSource>(engine_.get(), chain_);
    registry_ =
        std::make_unique<server::ModelRegistry>(source_.get(), server::ModelRegistry::Options{});
    timer_ = std::make_unique<server::Timer>();
    settings_ = std::make_unique<SettingsStore>(std::make_shared<const Settings>(settings), "",
                                                Overrides{});
    frontend_ =
        std::make_unique<server::Frontend>(server::Frontend::Parts{.engine = engine_.get(),
                                                                   .registry = registry_.get(),
                                                                   .pool = pool_.get(),
                                                                   .timer = timer_.get(),
                                                                   .settings = settings_.get()});
  }

  static server::GenerationSpec Ask(const std::string& text, uint32_t max_tokens) {
    server::GenerationSpec spec;
    spec.model = "a";
    spec.prompt.input = server::PromptSpec::Input::kText;
    spec.prompt.text = text;
    spec.sampling.temperature = 0.0f;
    spec.stopping.max_tokens = max_tokens;
    spec.stopping.ignore_eos = true;
    spec.output.token_ids = true;  // every token in a delta, whatever text it makes
    return spec;
  }

  struct Running {
    std::shared_ptr<BatchReader> reader;
    std::shared_ptr<server::RequestHandle> handle;
  };
  Running Run(server::GenerationSpec spec, BatchReader::Mode mode = BatchReader::Mode::kReading) {
    Running running{std::make_shared<BatchReader>(mode), nullptr};
    auto handle = frontend_->Start(std::move(spec), running.reader);
    EXPECT_TRUE(handle.ok()) << handle.status();
    if (handle.ok()) running.handle = std::move(*handle);
    return running;
  }
  Status Refusal(server::GenerationSpec spec) {
    auto reader = std::make_shared<BatchReader>();
    const auto handle = frontend_->Start(std::move(spec), reader);
    EXPECT_FALSE(handle.ok());
    EXPECT_EQ(reader->calls(), 0u);
    return handle.status();
  }

  // Waits until `done` holds; false after 30 s.
  template <typename Done>
  static bool Eventually(const Done& done) {
    for (int i = 0; i < 6000; ++i) {
      if (done()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  // Nothing of any request is left: no page, no sequence, no place in the queue, no holder.
  bool NothingHeld() {
    return Eventually([this] {
      const scheduler::EngineStats stats = engine_->Stats();
      return stats.running == 0 && stats.waiting == 0 && stats.parked == 0 &&
             stats.cache.used_bytes == 0 && engine_->inbox().waiting_requests() == 0 &&
             engine_->inbox().waiting_prompt_tokens() == 0 && frontend_->open_requests() == 0;
    });
  }

  std::shared_ptr<const blockzoo::Chain> chain_;
  std::unique_ptr<ChainSource> source_;
  std::unique_ptr<server::ModelRegistry> registry_;
  std::unique_ptr<server::WorkPool> pool_;
  std::unique_ptr<server::Timer> timer_;
  std::unique_ptr<SettingsStore> settings_;
  std::unique_ptr<server::Frontend> frontend_;
};

}  // namespace tessera::testing
