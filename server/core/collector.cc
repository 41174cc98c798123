#include "server/core/collector.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace tessera::server {
namespace {

class Collector final : public EventSink {
 public:
  explicit Collector(std::function<void(CollectedOutput)> done) : done_(std::move(done)) {}

  void OnReady(const std::shared_ptr<RequestHandle>& handle) override {
    if (ended_) return;
    OutputBatch batch;
    while (!ended_ && handle->Take(batch)) Add(batch);
    if (!ended_) return;
    const auto done = std::move(done_);
    done(std::move(output_));
  }

 private:
  void Add(OutputBatch& batch) {
    if (batch.started) output_.started = std::move(batch.started);
    std::move(batch.prompt_tokens.begin(), batch.prompt_tokens.end(),
              std::back_inserter(output_.prompt_tokens));
    if (!batch.embedding.empty()) output_.embedding = std::move(batch.embedding);
    for (OutputDelta& delta : batch.deltas) {
      OutputDelta& whole = Choice(delta.choice);
      whole.token_count += delta.token_count;
      std::move(delta.tokens.begin(), delta.tokens.end(), std::back_inserter(whole.tokens));
      whole.Append(std::move(delta));
    }
    for (OutputFinished& finished : batch.finished) {
      (void)Choice(finished.choice);
      output_.finished.push_back(std::move(finished));
    }
    if (batch.error) output_.error = *batch.error;
    if (!batch.ends()) return;
    ended_ = true;
    std::sort(output_.finished.begin(), output_.finished.end(),
              [](const auto& a, const auto& b) { return a.choice < b.choice; });
  }

  OutputDelta& Choice(uint32_t choice) {
    while (output_.choices.size() <= choice) {
      const auto next = static_cast<uint32_t>(output_.choices.size());
      output_.choices.emplace_back().choice = next;
    }
    return output_.choices[choice];
  }

  bool ended_ = false;
  CollectedOutput output_;
  std::function<void(CollectedOutput)> done_;
};

}  // namespace

StatusOr<std::shared_ptr<RequestHandle>> StartCollected(Frontend& frontend, GenerationSpec spec,
                                                        std::function<void(CollectedOutput)> done) {
  struct Owner {
    std::shared_ptr<Collector> collector;
    std::shared_ptr<RequestHandle> handle;
  };
  auto owner = std::make_shared<Owner>();
  owner->collector = std::make_shared<Collector>(std::move(done));
  TESSERA_ASSIGN_OR_RETURN(owner->handle, frontend.Start(std::move(spec), owner->collector));
  RequestHandle* const handle = owner->handle.get();
  return std::shared_ptr<RequestHandle>(std::move(owner), handle);
}

}  // namespace tessera::server
