// A mixture of experts: x += sum over the row's chosen experts of weight * expert(norm(x)), and
// what shared experts add for every row.
#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "blockzoo/block_parts.h"
#include "blockzoo/block_type.h"
#include "blockzoo/stacked_weight.h"

namespace tessera::blockzoo {
namespace {

class MoeBlock final : public BoundBlock {
 public:
  static StatusOr<std::unique_ptr<BoundBlock>> Bind(const BindContext& context) {
    auto block = std::make_unique<MoeBlock>();
    TESSERA_RETURN_IF_ERROR(block->BindAttributes(context.manifest.attributes));
    TESSERA_RETURN_IF_ERROR(block->BindOps(context));
    TESSERA_RETURN_IF_ERROR(block->BindExperts(context));
    TESSERA_RETURN_IF_ERROR(block->BindShared(context));
    TESSERA_RETURN_IF_ERROR(block->BindInputs(context));
    TESSERA_RETURN_IF_ERROR(CheckKnown(context, Known()));
    return std::unique_ptr<BoundBlock>(std::move(block));
  }

  void Run(const Launch& launch) const override {
    Carver carver(launch.scratch->workspace);
    const LinearInput::Rows normed = norm_input_.Take(carver, launch.rows);
    const kernels::LinearOp::Params params = norm_input_.Begin(launch, normed, NormOf);
    const Routes routes = RunRouter(launch, params, carver);
    const void* outputs = RunExperts(launch, normed.x, routes, carver);
    const Shared shared = has_shared_ ? RunShared(launch, params, carver) : Shared();
    combine_kernel_(*launch.context, {.outputs = outputs,
                                      .slot_of = routes.slot_of,
                                      .weights = routes.weights,
                                      .shared = shared.output,
                                      .shared_logit = shared.logit,
                                      .residual = launch.residual,
                                      .y_rows = launch.step_rows,
                                      .rows = launch.rows,
                                      .used = router_.used,
                                      .width = width_,
                                      .scale = residual_scale_});
  }

 private:
  // What route_experts.h says of the rows of a launch.
  struct Routes {
    float* weights = nullptr;
    int32_t* slot_of = nullptr;
    int32_t* row_of = nullptr;
    int32_t* first = nullptr;
  };
  struct Shared {
    const void* output = nullptr;
    const float* logit = nullptr;
  };
  struct Part {
    BoundWeight weight;
    BoundVector bias;
  };
  struct ExpertPart {
    StackedWeight weight;
    BoundVector bias;  // [experts, out]
  };

  static KnownNames Known() {
    return {.attributes = {"width", "hidden", "activation", "limit", "alpha", "norm",
                           "norm_epsilon", "residual_scale", "experts", "experts_used", "groups",
                           "groups_used", "group_score", "router_score", "router_scale",
                           "router_normalise", "shared_hidden"},
            .roles = {"norm", "norm_bias", "router", "router_bias", "selection_bias", "gate",
                      "gate_bias", "up", "up_bias", "down", "down_bias", "shared_gate", "shared_up",
                      "shared_down", "shared_gate_weight"}};
  }

  static const MoeBlock& Of(const LaunchMember& member) {
    return static_cast<const MoeBlock&>(*member.block);
  }
  static const BoundNorm& NormOf(const LaunchMember& member) { return Of(member).norm_; }

  // A product of every row.
  void RunPart(const Launch& launch, Part MoeBlock::*part, kernels::LinearOp::Params params,
               kernels::Epilogue epilogue, void* y) const {
    std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
    tasks.clear();
    for (const LaunchMember& member : launch.members) {
      const Part& its = Of(member).*part;
      tasks.push_back({.weight = its.weight.packed.data(),
                       .bias = its.bias.data(),
                       .y = y,
                       .y_stride = its.weight.out,
                       .out = its.weight.out,
                       .row_begin = member.row_begin,
                       .row_count = member.row_count,
                       .norm = NormOf(member).weight.data()});
    }
    params.tasks = tasks;
    params.epilogue = epilogue;
    (this->*part).weight.kernel(*launch.context, params);
  }

  Routes RunRouter(const Launch& launch, const kernels::LinearOp::Params& params,
                   Carver& carver) const {
    const auto rows = static_cast<uint64_t>(launch.rows);
    const auto experts = static_cast<uint64_t>(router_.experts);
    const uint64_t slots = rows * static_cast<uint64_t>(router_.used);
    float* logits = carver.Take<float>(rows * experts);
    float* choice = carver.Take<float>(rows * experts);
    int32_t* chosen = carver.Take<int32_t>(slots);
    const Routes routes = {.weights = carver.Take<float>(slots),
                           .slot_of = carver.Take<int32_t>(slots),
                           .row_of = carver.Take<int32_t>(slots),
                           .first = carver.Take<int32_t>(launch.members.size() * (experts + 1))};
    RunPart(launch, &MoeBlock::logits_, params, kernels::Epilogue::kLogits, logits);
    std::vector<kernels::RouteTask>& tasks = launch.scratch->route;
    tasks.clear();
    for (const LaunchMember& member : launch.members) {
      tasks.push_back({.selection_bias = Of(member).selection_bias_.data(),
                       .row_begin = member.row_begin,
                       .row_count = member.row_count});
    }
    route_kernel_(*launch.context, {.router = router_,
                                    .tasks = tasks,
                                    .logits = logits,
                                    .choice = choice,
                                    .experts = chosen,
                                    .weights = routes.weights,
                                    .slot_of = routes.slot_of,
                                    .row_of = routes.row_of,
                                    .first = routes.first});
    return routes;
  }

  // Tasks of each expert that has rows.
  void AddExpertTasks(const Launch& launch, ExpertPart MoeBlock::*part, const Routes& routes,
                      void* y) const {
    std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
    const int32_t* first = routes.first;
    for (const LaunchMember& member : launch.members) {
      const ExpertPart& its = Of(member).*part;
      for (int32_t e = 0; e < router_.experts; ++e) {
        if (first[e + 1] == first[e]) continue;
        const float* bias = its.bias.data();
        tasks.push_back({.weight = its.weight.Part(e),
                         .bias = bias == nullptr ? nullptr : bias + int64_t{e} * its.weight.out,
                         .y = y,
                         .y_stride = its.weight.out,
                         .out = its.weight.out,
                         .row_begin = first[e],
                         .row_count = first[e + 1] - first[e]});
      }
      first += router_.experts + 1;
    }
  }

  void RunExpertPart(const Launch& launch, ExpertPart MoeBlock::*part, const Routes& routes,
                     const kernels::Activation& x, void* y) const {
    launch.scratch->linear.clear();
    AddExpertTasks(launch, part, routes, y);
    RunTasks(launch, (this->*part).weight.all, x);
  }

  static void RunTasks(const Launch& launch, const BoundWeight& weight,
                       const kernels::Activation& x) {
    weight.kernel(*launch.context, {.x = x, .in = weight.in, .tasks = launch.scratch->linear});
  }

  // The outputs of all slots.
  const void* RunExperts(const Launch& launch, const void* x, const Routes& routes,
                         Carver& carver) const {
    Launch slots = launch;
    slots.rows = launch.rows * router_.used;
    const LinearInput::Rows gathered = expert_input_.Take(carver, slots.rows);
    const LinearInput::Rows gate = hidden_input_.Take(carver, slots.rows);
    void* up = carver.TakeActivations(
        static_cast<uint64_t>(slots.rows) * static_cast<uint64_t>(hidden_), element_bytes_);
    gather_kernel_(
        *launch.context,
        {.x = x, .rows = routes.row_of, .y = gathered.x, .count = slots.rows, .width = width_});
    const kernels::Activation input = expert_input_.Ready(slots, gathered);
    if (gate_.weight.all.dtype == up_.weight.all.dtype) {
      launch.scratch->linear.clear();
      AddExpertTasks(launch, &MoeBlock::gate_, routes, gate.x);
      AddExpertTasks(launch, &MoeBlock::up_, routes, up);
      RunTasks(launch, up_.weight.all, input);
    } else {
      RunExpertPart(launch, &MoeBlock::gate_, routes, input, gate.x);
      RunExpertPart(launch, &MoeBlock::up_, routes, input, up);
    }
    Gate(launch, gate.x, up, slots.rows, hidden_);
    // The gathered rows have been read.
    RunExpertPart(launch, &MoeBlock::down_, routes, hidden_input_.Ready(slots, gate), gathered.x);
    return gathered.x;
  }

  // gate = activation(gate) * up.
  void Gate(const Launch& launch, void* gate, const void* up, int32_t rows, int32_t width) const {
    if (clamped_kernel_.run != nullptr) {
      clamped_kernel_(*launch.context, {.gate = gate,
                                        .up = up,
                                        .y = gate,
                                        .count = int64_t{rows} * width,
                                        .limit = limit_,
                                        .alpha = alpha_});
      return;
    }
    gate_kernel_(
        *launch.context,
        {.gate = gate, .up = up, .y = gate, .rows = rows, .width = width, .kind = activation_});
  }

  Shared RunShared(const Launch& launch, const kernels::LinearOp::Params& params,
                   Carver& carver) const {
    const auto rows = static_cast<uint64_t>(launch.rows);
    const LinearInput::Rows gate = shared_input_.Take(carver, launch.rows);
    void* up = carver.TakeActivations(rows * static_cast<uint64_t>(shared_hidden_), element_bytes_);
    void* output = carver.TakeActivations(rows * static_cast<uint64_t>(width_), element_bytes_);
    RunPart(launch, &MoeBlock::shared_gate_, params, kernels::Epilogue::kStore, gate.x);
    RunPart(launch, &MoeBlock::shared_up_, params, kernels::Epilogue::kStore, up);
    Gate(launch, gate.x, up, launch.rows, shared_hidden_);
    RunPart(launch, &MoeBlock::shared_down_,
            {.x = shared_input_.Ready(launch, gate), .in = shared_hidden_},
            kernels::Epilogue::kStore, output);
    if (!shares_) return {.output = output};
    float* logit = carver.Take<float>(rows);
    RunPart(launch, &MoeBlock::shared_logit_, params, kernels::Epilogue::kLogits, logit);
    return {.output = output, .logit = logit};
  }

  Status BindAttributes(const Attributes& attributes) {
    TESSERA_ASSIGN_OR_RETURN(width_, attributes.Integer("width", 1, 1 << 20));
    TESSERA_ASSIGN_OR_RETURN(hidden_, attributes.Integer("hidden", 1, 1 << 22));
    TESSERA_ASSIGN_OR_RETURN(settings_, NormSettingsOf(attributes));
    TESSERA_RETURN_IF_ERROR(BindRouter(attributes));
    TESSERA_ASSIGN_OR_RETURN(const double scale,
                             NumberOr(attributes, "residual_scale", -1e6, 1e6, 1.0));
    residual_scale_ = static_cast<float>(scale);
    if (attributes.Has("shared_hidden")) {
      has_shared_ = true;
      TESSERA_ASSIGN_OR_RETURN(shared_hidden_, attributes.Integer("shared_hidden", 1, 1 << 22));
    }
    return absl::OkStatus();
  }

  Status BindRouter(const Attributes& attributes) {
    constexpr int64_t kMost = kernels::RouteExpertsOp::kMaxExperts;
    TESSERA_ASSIGN_OR_RETURN(router_.experts, attributes.Integer("experts", 1, kMost));
    TESSERA_ASSIGN_OR_RETURN(router_.used, attributes.Integer("experts_used", 1, router_.experts));
    if (attributes.Has("groups")) {
      TESSERA_ASSIGN_OR_RETURN(router_.groups, attributes.Integer("groups", 1, router_.experts));
      TESSERA_ASSIGN_OR_RETURN(router_.groups_used,
                               attributes.Integer("groups_used", 1, router_.groups));
      TESSERA_ASSIGN_OR_RETURN(const std::string score, attributes.Text("group_score"));
      if (score != "max" && score != "top_two") {
        return Unknown("group_score", score, "max and top_two");
      }
      router_.group_score =
          score == "max" ? kernels::GroupScore::kMax : kernels::GroupScore::kTopTwo;
    }
    TESSERA_ASSIGN_OR_RETURN(const std::string score, attributes.Text("router_score"));
    if (score == "softmax") {
      router_.score = kernels::RouterScore::kSoftmax;
    } else if (score == "sigmoid") {
      router_.score = kernels::RouterScore::kSigmoid;
    } else if (score == "softmax_of_top") {
      router_.score = kernels::RouterScore::kSoftmaxOfTop;
    } else {
      return Unknown("router_score", score, "softmax, sigmoid and softmax_of_top");
    }
    if (attributes.Has("router_normalise")) {
      TESSERA_ASSIGN_OR_RETURN(const int64_t normalise,
                               attributes.Integer("router_normalise", 0, 1));
      router_.normalise = normalise != 0;
    }
    TESSERA_ASSIGN_OR_RETURN(const double scale,
                             NumberOr(attributes, "router_scale", -1e6, 1e6, 1.0));
    router_.scale = static_cast<float>(scale);
    return absl::OkStatus();
  }

  static Status Unknown(absl::string_view attribute, absl::string_view value,
                        absl::string_view known) {
    return Error(absl::StatusCode::kUnimplemented,
                 {.what = absl::StrCat("a moe block has ", attribute, " \"", value, "\""),
                  .why = absl::StrCat("the known ones are ", known)});
  }

  // First of all, so that a backend without mixtures says so.
  Status BindOps(const BindContext& context) {
    const kernels::Catalog& catalog = context.backend.catalog();
    TESSERA_ASSIGN_OR_RETURN(route_kernel_,
                             catalog.Find<kernels::RouteExpertsOp>({.router = router_}));
    TESSERA_ASSIGN_OR_RETURN(gather_kernel_,
                             catalog.Find<kernels::GatherRowsOp>({.width = width_}));
    TESSERA_ASSIGN_OR_RETURN(combine_kernel_,
                             catalog.Find<kernels::CombineExpertsOp>({.width = width_}));
    const Attributes& attributes = context.manifest.attributes;
    TESSERA_ASSIGN_OR_RETURN(const std::string activation, attributes.Text("activation"));
    if (activation == "clamped_swiglu") {
      TESSERA_ASSIGN_OR_RETURN(const double limit, attributes.Number("limit", 0, 1e6));
      TESSERA_ASSIGN_OR_RETURN(const double alpha, attributes.Number("alpha", -1e6, 1e6));
      limit_ = static_cast<float>(limit);
      alpha_ = static_cast<float>(alpha);
      TESSERA_ASSIGN_OR_RETURN(clamped_kernel_,
                               catalog.Find<kernels::ClampedSwigluOp>({.limit = limit_}));
      return absl::OkStatus();
    }
    std::string known;
    for (int i = 0; i < kernels::kActivationKinds; ++i) {
      activation_ = static_cast<kernels::ActivationKind>(i);
      if (activation == kernels::NameOf(activation_)) {
        TESSERA_ASSIGN_OR_RETURN(gate_kernel_,
                                 catalog.Find<kernels::GatedActivationOp>({.kind = activation_}));
        return absl::OkStatus();
      }
      absl::StrAppend(&known, kernels::NameOf(activation_), ", ");
    }
    return Unknown("activation", activation, absl::StrCat(known, "clamped_swiglu"));
  }

  Status BindExperts(const BindContext& context) {
    const auto width = static_cast<uint64_t>(width_);
    const auto experts = static_cast<uint64_t>(router_.experts);
    const Presence optional = Presence::kOptional;
    TESSERA_ASSIGN_OR_RETURN(norm_, BindNorm(context, "norm", settings_.kind, width));
    TESSERA_ASSIGN_OR_RETURN(logits_.weight, BindWeight(context, "router", experts, width));
    TESSERA_ASSIGN_OR_RETURN(logits_.bias, BindVector(context, "router_bias", experts, optional));
    TESSERA_ASSIGN_OR_RETURN(selection_bias_,
                             BindVector(context, "selection_bias", experts, optional));
    const auto bind = [&](ExpertPart& part, const char* role, const char* bias, int32_t out,
                          int32_t in) -> Status {
      TESSERA_ASSIGN_OR_RETURN(part.weight,
                               BindStackedWeight(context, role, router_.experts, out, in));
      TESSERA_ASSIGN_OR_RETURN(
          part.bias,
          BindVector(context, bias, experts * static_cast<uint64_t>(out), Presence::kOptional));
      return absl::OkStatus();
    };
    TESSERA_RETURN_IF_ERROR(bind(gate_, "gate", "gate_bias", hidden_, width_));
    TESSERA_RETURN_IF_ERROR(bind(up_, "up", "up_bias", hidden_, width_));
    return bind(down_, "down", "down_bias", width_, hidden_);
  }

  Status BindShared(const BindContext& context) {
    if (!has_shared_) return absl::OkStatus();
    const auto width = static_cast<uint64_t>(width_);
    const auto hidden = static_cast<uint64_t>(shared_hidden_);
    TESSERA_ASSIGN_OR_RETURN(shared_gate_.weight,
                             BindWeight(context, "shared_gate", hidden, width));
    TESSERA_ASSIGN_OR_RETURN(shared_up_.weight, BindWeight(context, "shared_up", hidden, width));
    TESSERA_ASSIGN_OR_RETURN(shared_down_.weight,
                             BindWeight(context, "shared_down", width, hidden));
    shares_ = context.manifest.Find("shared_gate_weight") != nullptr;
    if (!shares_) return absl::OkStatus();
    TESSERA_ASSIGN_OR_RETURN(shared_logit_.weight,
                             BindWeight(context, "shared_gate_weight", 1, width));
    return absl::OkStatus();
  }

  Status BindInputs(const BindContext& context) {
    element_bytes_ = context.backend.activation_bytes();
    std::vector<BoundWeight*> readers = {&logits_.weight};
    if (has_shared_) readers.insert(readers.end(), {&shared_gate_.weight, &shared_up_.weight});
    if (shares_) readers.push_back(&shared_logit_.weight);
    TESSERA_RETURN_IF_ERROR(norm_input_.Bind(context, width_, settings_, false, readers));
    BoundWeight* const experts[] = {&gate_.weight.all, &up_.weight.all};
    TESSERA_RETURN_IF_ERROR(expert_input_.Bind(context, width_, experts));
    BoundWeight* const down[] = {&down_.weight.all};
    TESSERA_RETURN_IF_ERROR(hidden_input_.Bind(context, hidden_, down));
    const auto chosen = static_cast<uint64_t>(router_.used);
    const auto all = static_cast<uint64_t>(router_.experts);
    workspace_bytes_per_row_ =
        norm_input_.workspace_bytes_per_row() + 2 * RowBytes(sizeof(float), all) +
        4 * RowBytes(sizeof(float), chosen) + RowBytes(sizeof(int32_t), all + 1) +
        chosen *
            (expert_input_.workspace_bytes_per_row() + hidden_input_.workspace_bytes_per_row() +
             RowBytes(element_bytes_, static_cast<uint64_t>(hidden_)));
    if (has_shared_) {
      BoundWeight* const shared_down[] = {&shared_down_.weight};
      TESSERA_RETURN_IF_ERROR(shared_input_.Bind(context, shared_hidden_, shared_down));
      workspace_bytes_per_row_ += shared_input_.workspace_bytes_per_row() +
                                  RowBytes(element_bytes_, static_cast<uint64_t>(shared_hidden_)) +
                                  RowBytes(element_bytes_, static_cast<uint64_t>(width_)) +
                                  RowBytes(sizeof(float), 1);
    }
    linear_tasks_ = 2 * all;
    max_width_ =
        static_cast<uint64_t>(std::max({width_, hidden_, shared_hidden_, router_.experts}));
    return absl::OkStatus();
  }

  int32_t width_ = 0;
  int32_t hidden_ = 0;
  int32_t shared_hidden_ = 0;
  NormSettings settings_;
  float residual_scale_ = 1;
  float limit_ = 0;
  float alpha_ = 0;
  bool has_shared_ = false;
  bool shares_ = false;  // the shared experts' output has a weight of its own
  kernels::ExpertRouter router_;
  kernels::ActivationKind activation_ = kernels::ActivationKind::kSilu;
  BoundNorm norm_;
  BoundVector selection_bias_;
  Part logits_, shared_gate_, shared_up_, shared_down_, shared_logit_;
  ExpertPart gate_, up_, down_;
  uint64_t element_bytes_ = 0;
  NormedInput norm_input_;    // the router and shared experts read it
  LinearInput expert_input_;  // its rows by slot
  LinearInput hidden_input_;
  LinearInput shared_input_;
  kernels::Kernel<kernels::RouteExpertsOp> route_kernel_;
  kernels::Kernel<kernels::GatherRowsOp> gather_kernel_;
  kernels::Kernel<kernels::CombineExpertsOp> combine_kernel_;
  kernels::Kernel<kernels::GatedActivationOp> gate_kernel_;
  kernels::Kernel<kernels::ClampedSwigluOp> clamped_kernel_;
};

}  // namespace

void Register_moe(BlockTypeRegistry& registry) {
  registry.Add({.name = "moe", .bind = MoeBlock::Bind});
}

}  // namespace tessera::blockzoo
