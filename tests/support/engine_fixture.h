// An engine over tiny chains on the CPU backend, and a reader that collects what it answers.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "scheduler/engine.h"
#include "tests/support/tiny_chain.h"

namespace tessera::testing {

// Everything one request answered.
struct Answer {
  std::vector<std::vector<TokenId>> tokens;   // by choice
  std::vector<scheduler::TokenEvent> events;  // output tokens, in order
  std::vector<scheduler::TokenEvent> prompt_events;
  std::vector<std::vector<kernels::TokenLogprob>> top;  // one for each of `events`
  std::vector<float> pooled;
  std::vector<scheduler::FinishedEvent> finished;
  std::optional<scheduler::StartedEvent> started;
  Status error;
};

class Reader {
 public:
  explicit Reader(uint32_t choices) {
    answer_.tokens.resize(choices);
    mailbox_ = std::make_shared<scheduler::StreamMailbox>(
        scheduler::StreamMailbox::Options{.on_ready = [signal = signal_] {
          const std::lock_guard lock(signal->mutex);
          signal->ready = true;
          signal->changed.notify_one();
        }});
  }
  ~Reader() { mailbox_->Close(); }

  [[nodiscard]] const std::shared_ptr<scheduler::StreamMailbox>& mailbox() const {
    return mailbox_;
  }

  // Reads until the request has ended.
  Answer Wait() {
    scheduler::MailboxBatch batch;
    for (;;) {
      {
        std::unique_lock lock(signal_->mutex);
        if (!signal_->changed.wait_for(lock, std::chrono::seconds(60),
                                       [&] { return signal_->ready; })) {
          answer_.error = absl::DeadlineExceededError("the engine gave no answer for 60 s");
          return answer_;
        }
        signal_->ready = false;
      }
      if (mailbox_->Drain(batch) && Take(batch)) return answer_;
    }
  }

 private:
  bool Take(const scheduler::MailboxBatch& batch) {
    if (batch.started) answer_.started = batch.started;
    for (const scheduler::TokenEvent& event : batch.tokens) {
      if (event.is_prompt) {
        answer_.prompt_events.push_back(event);
        continue;
      }
      answer_.tokens[event.choice].push_back(event.token);
      answer_.events.push_back(event);
      const auto top = batch.top.begin() + event.top_begin;
      answer_.top.emplace_back(top, top + event.top_count);
    }
    if (!batch.pooled.empty()) answer_.pooled = batch.pooled;
    for (const scheduler::FinishedEvent& event : batch.finished) {
      answer_.finished.push_back(event);
    }
    if (batch.error) answer_.error = *batch.error;
    return batch.error.has_value() || (!answer_.finished.empty() && answer_.finished.back().last);
  }

  struct Signal {
    std::mutex mutex;
    std::condition_variable changed;
    bool ready = false;
  };
  std::shared_ptr<Signal> signal_ = std::make_shared<Signal>();
  Answer answer_;
  std::shared_ptr<scheduler::StreamMailbox> mailbox_;
};

class EngineFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    // The same tests on a device: TESSERA_TEST_DEVICE=cuda.
    const char* device = std::getenv("TESSERA_TEST_DEVICE");
    StatusOr<std::unique_ptr<kernels::Backend>> backend =
        device != nullptr && std::string(device) == "cuda"
            ? kernels::MakeCudaBackend(0)
            : kernels::MakeCpuBackend(kernels::CpuIsa::kAuto);
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = std::move(*backend);
    binder_ = std::make_unique<blockzoo::ChainBinder>(backend_, blockzoo::CacheChoice());
  }

  // Makes what follows run on another backend.
  void Use(std::shared_ptr<const kernels::Backend> backend) {
    engine_ = nullptr;
    binder_ = nullptr;
    backend_ = std::move(backend);
    binder_ = std::make_unique<blockzoo::ChainBinder>(backend_, blockzoo::CacheChoice());
  }

  // Starts an engine; the default has room for several sequences.
  void Start(scheduler::EngineOptions options = {}) {
    if (options.threads == 0) options.threads = 2;
    StatusOr<std::unique_ptr<scheduler::Engine>> engine =
        scheduler::Engine::Create(options, backend_, nullptr);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = std::move(*engine);
  }

  std::shared_ptr<const blockzoo::Chain> Bind(const blockzoo::ChainManifest& manifest) {
    StatusOr<std::shared_ptr<const blockzoo::Chain>> chain = binder_->Bind(manifest, weights_);
    EXPECT_TRUE(chain.ok()) << chain.status();
    return chain.ok() ? *chain : nullptr;
  }

  // Adds a chain whose token t is the byte 'a' + t % 26.
  ChainId Add(const std::string& name, const blockzoo::ChainManifest& manifest) {
    const std::shared_ptr<const blockzoo::Chain> chain = Bind(manifest);
    if (chain == nullptr) return ChainId();
    auto table = std::make_shared<scheduler::TokenTable>();
    for (uint32_t t = 0; t < chain->vocab(); ++t) {
      table->offsets.push_back(t);
      table->bytes.push_back(static_cast<char>('a' + t % 26));
    }
    table->offsets.push_back(static_cast<uint32_t>(chain->vocab()));
    const ChainId id(next_chain_++);
    const Status added = engine_->AddChain(id, {.name = name, .chain = chain, .tokens = table});
    EXPECT_TRUE(added.ok()) << added;
    return id;
  }

  scheduler::GenerationRequest Ask(ChainId chain, std::vector<TokenId> prompt,
                                   uint32_t max_tokens) {
    scheduler::GenerationRequest request;
    request.id = RequestId(next_request_++);
    request.chain = chain;
    request.prompt = std::move(prompt);
    request.sampling.temperature = 0;
    request.stopping.max_tokens = max_tokens;
    request.stopping.ignore_eos = true;
    request.arrival = SystemClock().Now();
    return request;
  }

  std::unique_ptr<Reader> Submit(scheduler::GenerationRequest request) {
    auto reader = std::make_unique<Reader>(request.n);
    EXPECT_TRUE(engine_->inbox().Reserve().ok());
    const Status submitted =
        engine_->inbox().Submit({.request = std::move(request), .mailbox = reader->mailbox()});
    EXPECT_TRUE(submitted.ok()) << submitted;
    return reader;
  }

  Answer Run(scheduler::GenerationRequest request) { return Submit(std::move(request))->Wait(); }

  static std::vector<TokenId> Prompt(uint32_t seed, size_t length, uint32_t vocab = 160) {
    std::mt19937 engine(seed);
    std::vector<TokenId> prompt(length);
    for (TokenId& token : prompt) token = 3 + engine() % (vocab - 3);
    return prompt;
  }

  MemoryWeights weights_;
  TinyChains tiny_{weights_};
  std::shared_ptr<const kernels::Backend> backend_;
  std::unique_ptr<blockzoo::ChainBinder> binder_;
  std::unique_ptr<scheduler::Engine> engine_;
  uint32_t next_chain_ = 1;
  uint64_t next_request_ = 1;
};

}  // namespace tessera::testing
