// The frontend's side of a request: its phases, its mailbox, its end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/engine.h"
#include "server/core/frontend.h"
#include "server/core/output_assembler.h"
#include "server/core/request_handle.h"

namespace tessera::server {

// Shared by the handle, the pool's jobs and the model's load; ends once. Thread-safe.
//
// Phases: it holds a reservation in the inbox; then it is the engine's; then it has ended. Whoever
// moves it on gives back what the phase held.
class Request : public std::enable_shared_from_this<Request> {
 public:
  // Called once, when it has ended: the status, the finish reason of choice 0 and the model's name.
  using OnEnd = std::function<void(const Request& request, const Status& status,
                                   scheduler::FinishReason reason)>;
  struct Context {
    Frontend::Parts parts;
    RequestId id;
    TimePoint arrival;
    TimePoint deadline;
    Duration max_queue_wait{};
    uint64_t seed = 0;
    OnEnd on_end;
  };
  Request(Context context, GenerationSpec spec, std::weak_ptr<EventSink> sink);

  void set_handle(std::weak_ptr<RequestHandle> handle) { handle_ = std::move(handle); }

  // The model came, or did not: tokenizes on the pool and hands the request to the engine.
  void OnModel(StatusOr<ModelPtr> model);
  void OnLoadProgress(uint32_t blocks_done, uint32_t blocks_total);

  [[nodiscard]] bool Take(OutputBatch& batch);
  void Cancel();
  void End(const Status& reason);

  [[nodiscard]] const std::string& request_id() const { return spec_.request_id; }
  [[nodiscard]] const std::string& model_name() const { return spec_.model; }
  [[nodiscard]] ModelPtr model() const;
  [[nodiscard]] const std::vector<TokenId>& prompt_tokens() const { return prompt_; }
  [[nodiscard]] TimePoint arrival() const { return context_.arrival; }
  [[nodiscard]] const OutputUsage& usage() const { return usage_; }

 private:
  enum class Phase : uint8_t { kReserved, kSubmitted, kEnded };

  void Prepare(const ModelPtr& model);
  [[nodiscard]] Status Submit(const ModelPtr& model);
  [[nodiscard]] Status EncodeAll(const LoadedModel& model, uint32_t* continuation_from);
  [[nodiscard]] Status CheckEmbedding(const LoadedModel& model) const;
  [[nodiscard]] StatusOr<uint32_t> ChooseMaxTokens(const LoadedModel& model) const;
  [[nodiscard]] StatusOr<scheduler::GenerationRequest> MakeRequest(
      const LoadedModel& model, uint32_t continuation_from) const;
  [[nodiscard]] AnswerOptions ChatOptions() const;
  [[nodiscard]] OutputAssembler::Options AssemblerOptions(const ModelPtr& model) const;
  // Tells the sink that there is output: on the pool; on this thread, a pool's.
  void Notify();
  void NotifyHere();
  [[nodiscard]] bool BeginNotifying();
  void RunSink();
  // Gives back what the phase holds; false when it had ended. `status` is for the records.
  bool Close(const Status& status, scheduler::FinishReason reason);
  [[nodiscard]] Status Tell(const Status& status, uint32_t tokens_sent) const;

  const Context context_;
  GenerationSpec spec_;
  const std::weak_ptr<EventSink> sink_;
  std::weak_ptr<RequestHandle> handle_;  // set before anything else runs
  std::vector<TokenId> prompt_;          // set before the submission
  std::string prompt_end_;               // of a chat: the last of its text, set with it
  OutputUsage usage_;

  mutable std::mutex mutex_;
  Phase phase_ = Phase::kReserved;
  ModelPtr model_;
  std::shared_ptr<scheduler::StreamMailbox> mailbox_;
  std::optional<OutputProgress> load_progress_;
  std::optional<Status> ending_;  // decided on this side of the engine

  std::mutex notify_mutex_;
  bool notifying_ = false;
  bool notify_again_ = false;

  // The reader's.
  std::unique_ptr<OutputAssembler> assembler_;  // made before the mailbox
  scheduler::MailboxBatch events_;
};

}  // namespace tessera::server
