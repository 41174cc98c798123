#include "server/grpc/admin_service.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/log.h"
#include "server/core/errors.h"
#include "server/grpc/duration.h"
#include "server/grpc/message_stream.h"
#include "server/grpc/status_translator.h"
#include "tessera/admin/v1/admin_service.grpc.pb.h"

namespace tessera::server {
namespace {

namespace admin_wire = admin::v1;

constexpr Duration kDrainReport = std::chrono::milliseconds(50);

admin_wire::ModelState AdminState(ModelState state) {
  switch (state) {
    case ModelState::kUnloaded:
      return admin_wire::MODEL_STATE_UNLOADED;
    case ModelState::kLoading:
      return admin_wire::MODEL_STATE_LOADING;
    case ModelState::kReady:
      return admin_wire::MODEL_STATE_READY;
    case ModelState::kDraining:
      return admin_wire::MODEL_STATE_DRAINING;
    case ModelState::kFailed:
      return admin_wire::MODEL_STATE_FAILED;
  }
  return admin_wire::MODEL_STATE_UNSPECIFIED;
}

void Fill(const ModelInfo& info, admin_wire::Model* proto) {
  proto->set_name(info.name);
  proto->set_revision(info.summary.revision);
  proto->set_state(AdminState(info.state));
  proto->set_blocks(info.summary.blocks);
  proto->set_max_context(info.summary.max_context);
  proto->set_running_requests(info.users);
  proto->set_retiring_chains(info.retiring);
  if (!info.error.ok()) proto->set_error(std::string(info.error.message()));
  if (!info.model) return;
  proto->set_weight_bytes(info.model->weight_bytes);
  proto->mutable_loaded_time()->set_seconds(info.model->loaded_unix_seconds);
}

void Fill(const Problem& problem, admin_wire::ConfigProblem* proto) {
  std::string where = problem.file;
  if (problem.position.line > 0) absl::StrAppend(&where, ":", problem.position.line);
  if (problem.position.column > 0) absl::StrAppend(&where, ":", problem.position.column);
  if (!problem.field.empty()) absl::StrAppend(&where, where.empty() ? "" : ": ", problem.field);
  proto->set_where(where);
  proto->set_what(problem.message);
  proto->set_hint(problem.hint);
}

void Fill(const ReloadOutcome& outcome, ReloadMode mode, admin_wire::ReloadConfigResponse* proto) {
  proto->set_applied(outcome.accepted && mode == ReloadMode::kApply);
  proto->set_generation(static_cast<uint64_t>(outcome.generation));
  for (const Change& change : outcome.changes) {
    admin_wire::ConfigChange* one = proto->add_changes();
    one->set_path(change.field);
    one->set_from(change.before);
    one->set_to(change.after);
    one->set_needs_restart(change.reload == Reload::kRestart);
  }
  for (const Problem& problem : outcome.problems) Fill(problem, proto->add_problems());
}

Status InModel(const Status& status, const std::string& name) {
  return Annotate(status, absl::StrCat("model \"", name, "\""));
}

using LoadStream = MessageStream<admin_wire::LoadModelResponse>;
using DrainStream = MessageStream<admin_wire::DrainResponse>;

class AdminService final : public admin_wire::AdminService::CallbackService {
 public:
  explicit AdminService(AdminParts parts) : parts_(std::move(parts)) {}

  grpc::ServerWriteReactor<admin_wire::LoadModelResponse>* LoadModel(
      grpc::CallbackServerContext*, const admin_wire::LoadModelRequest* request) override {
    const std::shared_ptr<LoadStream> stream = LoadStream::Make();
    const std::string name = request->name();
    LogInfo("admin_load_model", {{"model", name}});
    parts_.frontend->registry().Reload(
        name,
        [stream](uint32_t done, uint32_t total) {
          admin_wire::LoadModelResponse message;
          message.set_blocks_done(done);
          message.set_blocks_total(total);
          stream->Send(std::move(message));
        },
        [this, stream, name](const StatusOr<ModelPtr>& model) {
          if (!model.ok()) {
            stream->End(ToGrpc(InModel(model.status(), name), ""));
            return;
          }
          admin_wire::LoadModelResponse message;
          for (const ModelInfo& info : parts_.frontend->registry().List()) {
            if (info.name == name) Fill(info, message.mutable_model());
          }
          message.set_blocks_done((*model)->blocks);
          message.set_blocks_total((*model)->blocks);
          stream->Send(std::move(message));
          stream->End(grpc::Status::OK);
        });
    return stream.get();
  }

  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context,
                                        const admin_wire::UnloadModelRequest* request,
                                        admin_wire::UnloadModelResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    LogInfo("admin_unload_model", {{"model", request->name()}});
    const Duration grace = request->has_grace() ? FromProto(request->grace())
                                                : parts_.settings->Current()->server.drain_timeout;
    auto ended = std::make_shared<std::atomic<uint32_t>>(0);
    const StatusOr<std::optional<ChainId>> chain =
        parts_.frontend->registry().Unload(request->name(), [reactor, response, ended] {
          response->set_ended_requests(ended->load());
          reactor->Finish(grpc::Status::OK);
        });
    if (!chain.ok()) {
      reactor->Finish(ToGrpc(chain.status(), ""));
    } else if (*chain) {
      parts_.timer->At(std::chrono::steady_clock::now() + grace,
                       [frontend = parts_.frontend, id = **chain, ended] {
                         ended->fetch_add(frontend->EndRequests(
                             id, MakeError(Condition::kDraining, "the model is being unloaded")));
                       });
    }
    return reactor;
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const admin_wire::ListModelsRequest*,
                                       admin_wire::ListModelsResponse* response) override {
    for (const ModelInfo& info : parts_.frontend->registry().List()) {
      Fill(info, response->add_models());
    }
    return Done(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* GetStats(grpc::CallbackServerContext* context,
                                     const admin_wire::GetStatsRequest*,
                                     admin_wire::GetStatsResponse* response) override {
    const scheduler::EngineStats stats = parts_.engine->Stats();
    response->set_running(stats.running);
    response->set_waiting(stats.waiting);
    response->set_parked(stats.parked);
    response->set_steps(stats.steps);
    response->set_rows(stats.rows);
    response->set_step_ns(stats.step_ns);
    response->set_kernel_ns(stats.kernel_ns);
    response->set_overhead_ns(stats.overhead_ns);
    response->set_preemptions(stats.preemptions);
    response->set_computed_prompt_tokens(stats.computed_prompt_tokens);
    response->set_output_tokens(stats.output_tokens);
    response->set_open_requests(parts_.frontend->open_requests());
    response->set_waiting_prompt_tokens(parts_.engine->inbox().waiting_prompt_tokens());
    response->set_weight_bytes(parts_.weight_bytes());
    response->set_draining(parts_.frontend->intake() == Frontend::Intake::kDraining);
    response->set_config_generation(static_cast<uint64_t>(parts_.settings->generation()));
    *response->mutable_uptime() =
        server::ToProto(std::chrono::steady_clock::now() - parts_.started);
    return Done(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* DescribePlan(grpc::CallbackServerContext* context,
                                         const admin_wire::DescribePlanRequest*,
                                         admin_wire::DescribePlanResponse* response) override {
    return OnPool(context, [this, response] {
      response->set_last_step(parts_.engine->DescribeNextPlan());
      response->set_memory(parts_.engine->DescribeMemory());
      return absl::OkStatus();
    });
  }

  grpc::ServerWriteReactor<admin_wire::DrainResponse>* Drain(
      grpc::CallbackServerContext*, const admin_wire::DrainRequest* request) override {
    const std::shared_ptr<DrainStream> stream = DrainStream::Make();
    Duration timeout = FromProto(request->timeout());
    if (timeout <= Duration::zero()) timeout = parts_.settings->Current()->server.drain_timeout;
    LogInfo("admin_drain");
    parts_.set_intake(Frontend::Intake::kDraining);
    ReportDrain(stream, std::chrono::steady_clock::now() + timeout);
    return stream.get();
  }

  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context,
                                   const admin_wire::ResumeRequest*,
                                   admin_wire::ResumeResponse*) override {
    LogInfo("admin_resume");
    parts_.set_intake(Frontend::Intake::kOpen);
    return Done(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* ReloadConfig(grpc::CallbackServerContext* context,
                                         const admin_wire::ReloadConfigRequest* request,
                                         admin_wire::ReloadConfigResponse* response) override {
    const ReloadMode mode = request->dry_run() ? ReloadMode::kDryRun : ReloadMode::kApply;
    return OnPool(context, [this, mode, response] {
      Fill(parts_.reload(mode), mode, response);
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* CheckConfig(grpc::CallbackServerContext* context,
                                        const admin_wire::CheckConfigRequest* request,
                                        admin_wire::CheckConfigResponse* response) override {
    return OnPool(context, [request, response] {
      const TextFormat format =
          absl::EndsWith(request->file_name(), ".json") ? TextFormat::kJson : TextFormat::kYaml;
      const LoadOutcome outcome =
          LoadSettingsText(request->text(), format, request->file_name(), {});
      for (const Problem& problem : outcome.problems) Fill(problem, response->add_problems());
      return absl::OkStatus();
    });
  }

 private:
  static grpc::ServerUnaryReactor* Done(grpc::CallbackServerContext* context,
                                        const Status& status) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(status, ""));
    return reactor;
  }

  grpc::ServerUnaryReactor* OnPool(grpc::CallbackServerContext* context,
                                   std::function<Status()> work) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    parts_.pool->Post([reactor, work = std::move(work)] { reactor->Finish(ToGrpc(work(), "")); });
    return reactor;
  }

  // Reports now and, as long as requests are open and `until` has not come, again a little later.
  void ReportDrain(const std::shared_ptr<DrainStream>& stream, TimePoint until) {
    if (stream->closed()) return;
    const uint32_t open = parts_.frontend->open_requests();
    admin_wire::DrainResponse message;
    message.set_open_requests(open);
    message.set_drained(open == 0);
    stream->Send(std::move(message));
    const TimePoint now = std::chrono::steady_clock::now();
    const bool resumed = parts_.frontend->intake() == Frontend::Intake::kOpen;
    if (open == 0 || now >= until || resumed) {
      stream->End(grpc::Status::OK);
      return;
    }
    parts_.timer->At(std::min(now + kDrainReport, until),
                     [this, stream, until] { ReportDrain(stream, until); });
  }

  const AdminParts parts_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeAdminService(AdminParts parts) {
  return std::make_shared<AdminService>(std::move(parts));
}

}  // namespace tessera::server
