#include "server/core/frontend.h"

#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/log.h"
#include "server/core/errors.h"
#include "server/core/request.h"

namespace tessera::server {
namespace {

class Handle final : public RequestHandle {
 public:
  explicit Handle(std::shared_ptr<Request> request) : request_(std::move(request)) {}
  ~Handle() override { request_->Cancel(); }

  [[nodiscard]] const std::string& request_id() const override { return request_->request_id(); }
  [[nodiscard]] bool Take(OutputBatch& batch) override { return request_->Take(batch); }
  void Cancel() override { request_->Cancel(); }
  void End(const Status& reason) override { request_->End(reason); }
  [[nodiscard]] ModelPtr model() const override { return request_->model(); }
  [[nodiscard]] const std::vector<TokenId>& prompt_tokens() const override {
    return request_->prompt_tokens();
  }

 private:
  const std::shared_ptr<Request> request_;
};

const char* NameOfReason(scheduler::FinishReason reason) {
  switch (reason) {
    case scheduler::FinishReason::kNone:
      return "none";
    case scheduler::FinishReason::kEos:
      return "eos";
    case scheduler::FinishReason::kStop:
      return "stop";
    case scheduler::FinishReason::kMaxTokens:
      return "max_tokens";
    case scheduler::FinishReason::kContextFull:
      return "context_full";
    case scheduler::FinishReason::kTimeLimit:
      return "time_limit";
    case scheduler::FinishReason::kCancelled:
      return "cancelled";
  }
  return "none";
}

Status Draining() {
  return MakeError(Condition::kDraining,
                   "the server is draining and takes no new requests; ask another "
                   "instance, or this one after its restart");
}

}  // namespace

struct Frontend::Impl : std::enable_shared_from_this<Frontend::Impl> {
  explicit Impl(const Parts& parts_in) : parts(parts_in) {
    if (parts.clock == nullptr) parts.clock = &SystemClock();
    std::random_device device;
    random.seed((static_cast<uint64_t>(device()) << 32) | device());
  }

  uint64_t Random() {
    const std::lock_guard lock(mutex);
    return random();
  }
  Status Enroll(const std::shared_ptr<Request>& request);
  Request::Context MakeContext(const GenerationSpec& spec, const Settings& settings);
  void OnEnd(const Request& request, const Status& status, scheduler::FinishReason reason);
  std::vector<std::shared_ptr<Request>> Open();
  void WatchLoad(const std::shared_ptr<Request>& request, TimePoint deadline);

  Parts parts;
  std::mutex mutex;
  std::mt19937_64 random;
  std::map<std::string, std::weak_ptr<Request>> open;
  std::atomic<uint32_t> open_count{0};
  std::atomic<uint64_t> next_id{1};
  std::atomic<Intake> intake{Intake::kOpen};
};

Status Frontend::Impl::Enroll(const std::shared_ptr<Request>& request) {
  const std::lock_guard lock(mutex);
  if (!open.emplace(request->request_id(), request).second) {
    ErrorDetails details;
    details.condition = Condition::kDuplicateRequest;
    details.resource_type = "request";
    details.resource_name = request->request_id();
    return MakeError(details, absl::StrCat("request_id \"", request->request_id(),
                                           "\" is in flight; use another or leave it out"));
  }
  open_count.fetch_add(1);
  return absl::OkStatus();
}

Request::Context Frontend::Impl::MakeContext(const GenerationSpec& spec, const Settings& settings) {
  Request::Context context;
  context.parts = parts;
  context.id = RequestId(next_id.fetch_add(1));
  context.arrival = parts.clock->Now();
  context.deadline = context.arrival + settings.limits.max_request_time;
  if (spec.deadline) context.deadline = std::min(context.deadline, *spec.deadline);
  context.max_queue_wait = spec.scheduling.max_queue_wait.value_or(settings.admission.max_wait);
  context.seed = Random();
  context.on_end = [impl = weak_from_this()](const Request& request, const Status& status,
                                             scheduler::FinishReason reason) {
    if (const auto self = impl.lock()) self->OnEnd(request, status, reason);
  };
  return context;
}

void Frontend::Impl::OnEnd(const Request& request, const Status& status,
                           scheduler::FinishReason reason) {
  {
    const std::lock_guard lock(mutex);
    if (open.erase(request.request_id()) > 0) open_count.fetch_sub(1);
  }
  const std::string code = absl::StatusCodeToString(status.code());
  const double seconds =
      std::chrono::duration<double>(parts.clock->Now() - request.arrival()).count();
  if (parts.metrics != nullptr) {
    parts.metrics->requests_total.With({request.model_name(), code, NameOfReason(reason)}).Inc();
    if (!status.ok() && ReportOf(status).details.condition == Condition::kSlowConsumer) {
      parts.metrics->slow_consumer_aborts_total.Inc();
    }
  }
  LogInfo("request", {{"request", request.request_id()},
                      {"model", request.model_name()},
                      {"code", code},
                      {"finish_reason", NameOfReason(reason)},
                      {"prompt_tokens", request.usage().prompt_tokens},
                      {"cached_tokens", request.usage().cached_tokens},
                      {"completion_tokens", request.usage().completion_tokens},
                      {"seconds", seconds}});
}

std::vector<std::shared_ptr<Request>> Frontend::Impl::Open() {
  std::vector<std::shared_ptr<Request>> requests;
  const std::lock_guard lock(mutex);
  for (const auto& [id, weak] : open) {
    if (auto request = weak.lock()) requests.push_back(std::move(request));
  }
  return requests;
}

// The engine ends what it has by the deadline; until then this does.
void Frontend::Impl::WatchLoad(const std::shared_ptr<Request>& request, TimePoint deadline) {
  const auto call = [weak = std::weak_ptr<Request>(request)] {
    if (const auto late = weak.lock()) {
      late->End(MakeError(Condition::kDeadline, "the deadline has passed"));
    }
  };
  const Timer::Ticket ticket = parts.timer->At(deadline, call);
  parts.registry->Acquire(
      request->model_name(),
      [weak = std::weak_ptr<Request>(request)](uint32_t done, uint32_t total) {
        if (const auto one = weak.lock()) one->OnLoadProgress(done, total);
      },
      [weak = std::weak_ptr<Request>(request), timer = parts.timer,
       ticket](StatusOr<ModelPtr> model) {
        timer->Cancel(ticket);
        if (const auto one = weak.lock()) one->OnModel(std::move(model));
      });
}

Frontend::Frontend(const Parts& parts) : impl_(std::make_shared<Impl>(parts)) {}

Frontend::~Frontend() {
  SetIntake(Intake::kDraining);
  for (const auto& request : impl_->Open()) request->Cancel();
}

Status Frontend::Check(const GenerationSpec& spec) const {
  if (intake() == Intake::kDraining) return Draining();
  TESSERA_RETURN_IF_ERROR(ValidateSpec(spec, LimitsOf(impl_->parts.settings->Current()->limits)));
  return impl_->parts.registry->Check(spec.model);
}

StatusOr<std::shared_ptr<RequestHandle>> Frontend::Start(GenerationSpec spec,
                                                         std::weak_ptr<EventSink> sink) {
  const std::shared_ptr<const Settings> settings = impl_->parts.settings->Current();
  TESSERA_RETURN_IF_ERROR(Check(spec));
  if (spec.request_id.empty()) {
    spec.request_id = absl::StrCat("req-", absl::Hex(impl_->Random(), absl::kZeroPad16));
  }
  Request::Context context = impl_->MakeContext(spec, *settings);
  const TimePoint deadline = context.deadline;
  scheduler::Inbox& inbox = impl_->parts.engine->inbox();
  const Status reserved = inbox.Reserve();
  if (!reserved.ok()) {
    if (impl_->parts.metrics != nullptr) {
      impl_->parts.metrics->admission_rejections_total.With({ReportOf(reserved).row->reason}).Inc();
    }
    return reserved;
  }
  auto request = std::make_shared<Request>(std::move(context), std::move(spec), std::move(sink));
  const Status enrolled = impl_->Enroll(request);
  if (!enrolled.ok()) {
    inbox.CancelReservation();
    return enrolled;
  }
  auto handle = std::make_shared<Handle>(request);
  request->set_handle(handle);
  impl_->WatchLoad(request, deadline);
  return std::shared_ptr<RequestHandle>(std::move(handle));
}

void Frontend::WithModel(const std::string& name, std::optional<TimePoint> deadline,
                         std::function<void(StatusOr<ModelPtr>)> job) {
  // Answered once, by whichever comes first.
  struct Call {
    std::atomic<bool> answered{false};
    std::function<void(StatusOr<ModelPtr>)> job;
  };
  auto call = std::make_shared<Call>();
  call->job = std::move(job);
  Timer* const timer = impl_->parts.timer;
  Timer::Ticket ticket = 0;
  if (deadline) {
    ticket = timer->At(*deadline, [call] {
      if (call->answered.exchange(true)) return;
      call->job(MakeError(Condition::kDeadline, "the deadline has passed"));
    });
  }
  impl_->parts.registry->Acquire(
      name, nullptr, [call, timer, ticket, pool = impl_->parts.pool](StatusOr<ModelPtr> model) {
        if (ticket != 0) timer->Cancel(ticket);
        if (call->answered.exchange(true)) return;
        if (!model.ok()) {
          call->job(std::move(model));
          return;
        }
        if (!pool->Offer([call, model] { call->job(model); })) {
          call->job(MakeError(Condition::kQueueFull, "too much is waiting for a tokenizer"));
        }
      });
}

std::vector<std::string> Frontend::CancelRequests(const std::vector<std::string>& request_ids) {
  std::vector<std::string> cancelled;
  for (const std::string& id : request_ids) {
    std::shared_ptr<Request> request;
    {
      const std::lock_guard lock(impl_->mutex);
      const auto found = impl_->open.find(id);
      if (found != impl_->open.end()) request = found->second.lock();
    }
    if (!request) continue;
    request->End(MakeError(Condition::kCancelled, "cancelled by request"));
    cancelled.push_back(id);
  }
  return cancelled;
}

uint32_t Frontend::EndRequests(ChainId chain, const Status& reason) {
  uint32_t ended = 0;
  for (const auto& request : impl_->Open()) {
    const ModelPtr model = request->model();
    if (chain.valid() && (!model || model->chain_id != chain)) continue;
    request->End(reason);
    ++ended;
  }
  return ended;
}

void Frontend::SetIntake(Intake intake) { impl_->intake.store(intake); }
Frontend::Intake Frontend::intake() const { return impl_->intake.load(); }
uint32_t Frontend::open_requests() const { return impl_->open_count.load(); }
ModelRegistry& Frontend::registry() const { return *impl_->parts.registry; }

}  // namespace tessera::server
