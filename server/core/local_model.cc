#include "server/core/local_model.h"

#include <condition_variable>
#include <mutex>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/memory_plan.h"
#include "server/core/startup.h"
#include "server/core/zoo_model_source.h"

namespace tessera::server {
namespace {

// Waits for one request's answer.
class Reader {
 public:
  Reader()
      : mailbox_(std::make_shared<scheduler::StreamMailbox>(scheduler::StreamMailbox::Options{
            .on_ready = [signal = signal_] { signal->Set(); }, .on_drained = nullptr})) {}
  ~Reader() { mailbox_->Close(); }

  [[nodiscard]] const std::shared_ptr<scheduler::StreamMailbox>& mailbox() const {
    return mailbox_;
  }

  // Until so many tokens have come, or the end.
  [[nodiscard]] Status WaitFor(size_t tokens) {
    scheduler::MailboxBatch batch;
    while (!ended_ && logprobs_.size() < tokens) {
      signal_->Wait();
      if (!mailbox_->Drain(batch)) continue;
      for (const scheduler::TokenEvent& event : batch.tokens) logprobs_.push_back(event.logprob);
      if (batch.error) return *batch.error;
      ended_ = !batch.finished.empty();
    }
    return absl::OkStatus();
  }
  // Of all tokens.
  [[nodiscard]] StatusOr<std::vector<float>> Wait() {
    TESSERA_RETURN_IF_ERROR(WaitFor(SIZE_MAX));
    return std::move(logprobs_);
  }

 private:
  struct Signal {
    void Set() {
      const std::lock_guard lock(mutex);
      set = true;
      changed.notify_one();
    }
    void Wait() {
      std::unique_lock lock(mutex);
      changed.wait(lock, [this] { return set; });
      set = false;
    }
    std::mutex mutex;
    std::condition_variable changed;
    bool set = false;
  };
  const std::shared_ptr<Signal> signal_ = std::make_shared<Signal>();
  const std::shared_ptr<scheduler::StreamMailbox> mailbox_;
  std::vector<float> logprobs_;
  bool ended_ = false;
};

using Readers = std::vector<std::unique_ptr<Reader>>;

Status WaitForAll(const Readers& readers, size_t tokens) {
  for (const std::unique_ptr<Reader>& reader : readers) {
    TESSERA_RETURN_IF_ERROR(reader->WaitFor(tokens));
  }
  return absl::OkStatus();
}

Status Submit(scheduler::Inbox& inbox, scheduler::GenerationRequest request, Reader& reader) {
  request.bypass_prefix_cache = true;
  request.arrival = SystemClock().Now();
  TESSERA_RETURN_IF_ERROR(inbox.Reserve());
  return inbox.Submit({.request = std::move(request), .mailbox = reader.mailbox()});
}

}  // namespace

StatusOr<std::unique_ptr<LocalModel>> LocalModel::Load(
    const std::shared_ptr<const Settings>& settings, blockzoo::Zoo* zoo, const std::string& chain) {
  auto local = std::unique_ptr<LocalModel>(new LocalModel);
  TESSERA_ASSIGN_OR_RETURN(local->backend_, MakeBackend(settings->engine, settings->store));
  local->settings_ = std::make_unique<SettingsStore>(settings, "", Overrides{});
  local->binder_ =
      std::make_unique<blockzoo::ChainBinder>(local->backend_, CacheChoiceOf(settings->engine.kv));
  const MemoryPlan plan = PlanMemory(settings->engine, FreeMemoryBytes(*local->backend_));
  scheduler::EngineOptions options = EngineOptionsOf(settings->engine, *local->backend_);
  options.cache_bytes = plan.cache_bytes;
  // Nothing is asked twice, one request runs at a time, and its reader is here.
  options.prefix_reuse = false;
  options.inbox.max_prompt_tokens = UINT64_MAX;
  options.park_above_tokens = UINT32_MAX;
  TESSERA_ASSIGN_OR_RETURN(local->engine_,
                           scheduler::Engine::Create(options, local->backend_, nullptr));
  ZooModelSource source({.zoo = zoo,
                         .binder = local->binder_.get(),
                         .engine = local->engine_.get(),
                         .settings = local->settings_.get(),
                         .weight_budget = plan.weight_bytes});
  TESSERA_ASSIGN_OR_RETURN(local->model_,
                           source.Load(chain, ChainId(1), [](uint32_t, uint32_t) {}));
  return local;
}

StatusOr<std::vector<float>> LocalModel::Score(std::span<const TokenId> ids, uint32_t from) {
  if (ids.size() > model_->max_context) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("model \"", model_->name, "\" takes ", model_->max_context,
                                       " tokens, not ", ids.size()),
                  .fix = "ask for a smaller context"});
  }
  TESSERA_RETURN_IF_ERROR(engine_->CheckFits(*model_->chain, ids.size(), 0));
  scheduler::GenerationRequest request;
  request.id = RequestId(next_request_++);
  request.chain = model_->chain_id;
  request.prompt.assign(ids.begin(), ids.end());
  request.prompt_only = true;
  request.output.prompt_logprobs = 0;
  request.output.prompt_logprobs_from = from;
  Reader reader;
  TESSERA_RETURN_IF_ERROR(Submit(engine_->inbox(), std::move(request), reader));
  return reader.Wait();
}

StatusOr<LocalModel::Phases> LocalModel::Profile(const ProfileLoad& load) {
  TESSERA_RETURN_IF_ERROR(
      engine_->CheckFits(*model_->chain, load.prompt_tokens, load.output_tokens));
  std::mt19937 random(static_cast<uint32_t>(load.seed));
  const auto submit_all = [&](Readers& readers, uint32_t output) -> Status {
    for (uint32_t i = 0; i < load.streams; ++i) {
      scheduler::GenerationRequest request;
      request.id = RequestId(next_request_++);
      request.chain = model_->chain_id;
      for (uint32_t t = 0; t < load.prompt_tokens; ++t) {
        request.prompt.push_back(static_cast<TokenId>(random() % model_->chain->vocab()));
      }
      request.sampling.temperature = 0;
      request.stopping.max_tokens = output;
      request.stopping.ignore_eos = true;
      readers.push_back(std::make_unique<Reader>());
      TESSERA_RETURN_IF_ERROR(Submit(engine_->inbox(), std::move(request), *readers.back()));
    }
    return absl::OkStatus();
  };
  Readers warm, prompts;
  TESSERA_RETURN_IF_ERROR(submit_all(warm, 1));
  TESSERA_RETURN_IF_ERROR(WaitForAll(warm, SIZE_MAX));
  Phases phases;
  engine_->StartProfile();
  TESSERA_RETURN_IF_ERROR(submit_all(prompts, 1));
  TESSERA_RETURN_IF_ERROR(WaitForAll(prompts, SIZE_MAX));
  phases.prompt = engine_->TakeProfile();
  // Short streams of a small model may end before the first step is counted: then longer ones.
  for (uint32_t output = load.output_tokens; phases.decode.steps == 0; output *= 2) {
    TESSERA_RETURN_IF_ERROR(engine_->CheckFits(*model_->chain, load.prompt_tokens, output));
    Readers streams;
    TESSERA_RETURN_IF_ERROR(submit_all(streams, output));
    TESSERA_RETURN_IF_ERROR(WaitForAll(streams, 1));
    engine_->StartProfile();
    // The first to come is the first to end.
    TESSERA_RETURN_IF_ERROR(streams.front()->WaitFor(SIZE_MAX));
    phases.decode = engine_->TakeProfile();
    TESSERA_RETURN_IF_ERROR(WaitForAll(streams, SIZE_MAX));
  }
  return phases;
}

}  // namespace tessera::server
