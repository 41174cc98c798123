// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): what is cached of a token is one
// latent, which all heads read as key and value. The up-projections k_b and v_b are applied to
// queries and to what was attended.
#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "blockzoo/block_parts.h"
#include "blockzoo/block_type.h"
#include "blockzoo/stacked_weight.h"

namespace tessera::blockzoo {
namespace {

class LatentAttentionBlock final : public BoundBlock {
 public:
  static StatusOr<std::unique_ptr<BoundBlock>> Bind(const BindContext& context) {
    auto block = std::make_unique<LatentAttentionBlock>();
    TESSERA_RETURN_IF_ERROR(block->BindAttributes(context.manifest.attributes));
    TESSERA_RETURN_IF_ERROR(block->BindState(context));
    TESSERA_RETURN_IF_ERROR(block->BindWeights(context));
    TESSERA_RETURN_IF_ERROR(block->BindInputs(context));
    TESSERA_RETURN_IF_ERROR(CheckKnown(context, Known()));
    return std::unique_ptr<BoundBlock>(std::move(block));
  }

  void Run(const Launch& launch) const override {
    Carver carver(launch.scratch->workspace);
    Pieces pieces = Carve(launch, carver);
    const kernels::LinearOp::Params params = norm_input_.Begin(launch, pieces.normed, NormOf);
    RunPart(launch, &LatentAttentionBlock::kv_a_, params, pieces.latent);
    if (q_rank_ > 0) {
      RunPart(launch, &LatentAttentionBlock::q_a_, params, pieces.q_low);
      NormQueries(launch, pieces);
      RunPart(launch, &LatentAttentionBlock::q_,
              {.x = q_input_.Ready(launch, pieces.q_normed), .in = q_rank_}, pieces.q);
    } else {
      RunPart(launch, &LatentAttentionBlock::q_, params, pieces.q);
    }
    Append(launch, pieces);
    // Rows of what follows are (head, row).
    Launch by_head = launch;
    by_head.rows = launch.rows * shape_.q_heads;
    RunHeads(launch, k_b_, &LatentAttentionBlock::k_b_, nope_input_.Ready(by_head, pieces.q_nope),
             pieces.q_latent, latent_width(), 0, nullptr);
    attention_kernel_(*launch.context, {.shape = shape_,
                                        .scale = scale_,
                                        .rows = launch.rows,
                                        .q = pieces.q_latent,
                                        .out = pieces.attended.x,
                                        .arena = launch.arena,
                                        .plan = launch.attention_plan,
                                        .table = launch.attention_table});
    RunHeads(launch, v_b_, &LatentAttentionBlock::v_b_,
             value_input_.Ready(by_head, pieces.attended), pieces.output.x, o_width(), v_dim_,
             pieces.row_of);
    RunPart(launch, &LatentAttentionBlock::o_,
            {.x = output_.Ready(launch, pieces.output),
             .in = o_width(),
             .epilogue = kernels::Epilogue::kResidual,
             .y_rows = launch.step_rows},
            launch.residual);
  }

 private:
  struct Part {
    BoundWeight weight;
    BoundVector bias;
  };
  // The workspace of a launch.
  struct Pieces {
    LinearInput::Rows normed;
    void* latent = nullptr;      // [rows, rank + rope]
    void* q_low = nullptr;       // [rows, q_rank]
    LinearInput::Rows q_normed;  // the same, normed
    void* q = nullptr;           // [rows, heads, nope + rope]
    LinearInput::Rows q_nope;    // [heads, rows, nope]
    void* q_latent = nullptr;    // [heads, rows, rank + rope]
    LinearInput::Rows attended;  // [heads, rows, rank]
    int32_t* row_of = nullptr;   // [heads, rows]
    LinearInput::Rows output;    // [rows, heads, v]
  };

  [[nodiscard]] int32_t latent_width() const { return shape_.rank + shape_.rope_dim; }
  [[nodiscard]] int32_t q_width() const {
    return shape_.q_heads * (shape_.nope_dim + shape_.rope_dim);
  }
  [[nodiscard]] int32_t o_width() const { return shape_.q_heads * v_dim_; }

  static KnownNames Known() {
    return {.attributes = {"width", "q_heads", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim",
                           "qk_rope_head_dim", "v_head_dim", "norm", "norm_epsilon", "rotary",
                           "rope_style", "scale"},
            .roles = {"norm", "norm_bias", "q", "q_bias", "q_a", "q_a_bias", "q_a_norm", "q_b",
                      "q_b_bias", "kv_a", "kv_a_bias", "kv_a_norm", "k_b", "v_b", "o", "o_bias"}};
  }

  static const LatentAttentionBlock& Of(const LaunchMember& member) {
    return static_cast<const LatentAttentionBlock&>(*member.block);
  }
  static const BoundNorm& NormOf(const LaunchMember& member) { return Of(member).norm_; }

  Pieces Carve(const Launch& launch, Carver& carver) const {
    const int64_t rows = launch.rows;
    const int64_t by_head = rows * shape_.q_heads;
    const auto take = [&](int64_t count, int32_t width) {
      return carver.TakeActivations(static_cast<uint64_t>(count * width), element_bytes_);
    };
    Pieces pieces;
    pieces.normed = norm_input_.Take(carver, rows);
    pieces.latent = take(rows, latent_width());
    if (q_rank_ > 0) {
      pieces.q_low = take(rows, q_rank_);
      pieces.q_normed = q_input_.Take(carver, rows);
    }
    pieces.q = take(rows, q_width());
    pieces.q_nope = nope_input_.Take(carver, by_head);
    pieces.q_latent = take(by_head, latent_width());
    pieces.attended = value_input_.Take(carver, by_head);
    pieces.row_of = carver.Take<int32_t>(static_cast<uint64_t>(by_head));
    pieces.output = output_.Take(carver, rows);
    return pieces;
  }

  void RunPart(const Launch& launch, Part LatentAttentionBlock::*part,
               kernels::LinearOp::Params params, void* y) const {
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
    (this->*part).weight.kernel(*launch.context, params);
  }

  void NormQueries(const Launch& launch, const Pieces& pieces) const {
    const auto tasks = NormTasks(launch, [](const LaunchMember& member) -> const BoundNorm& {
      return Of(member).q_a_norm_;
    });
    q_norm_kernel_(*launch.context, {.tasks = tasks,
                                     .x = pieces.q_low,
                                     .y = pieces.q_normed.x,
                                     .width = q_rank_,
                                     .epsilon = settings_.epsilon});
  }

  void Append(const Launch& launch, const Pieces& pieces) const {
    std::vector<kernels::LatentNorm>& norms = launch.scratch->latent_norm;
    norms.clear();
    for (const LaunchMember& member : launch.members) {
      norms.push_back({.weight = Of(member).kv_a_norm_.data(),
                       .row_begin = member.row_begin,
                       .row_count = member.row_count});
    }
    const RotaryRows& rotary = launch.rotary[rotary_index_];
    append_kernel_(*launch.context, {.shape = shape_,
                                     .style = style_,
                                     .rows = launch.rows,
                                     .norms = norms,
                                     .epsilon = settings_.epsilon,
                                     .q = pieces.q,
                                     .latent = pieces.latent,
                                     .q_nope = pieces.q_nope.x,
                                     .q_latent = pieces.q_latent,
                                     .row_of = pieces.row_of,
                                     .cosine = rotary.cosine,
                                     .sine = rotary.sine,
                                     .rotary_rows = launch.step_rows,
                                     .arena = launch.arena,
                                     .page = launch.append_page,
                                     .slot = launch.append_slot});
  }

  // Each head's product of its rows. Head h writes from column h * `column` of y on.
  void RunHeads(const Launch& launch, const StackedWeight& own,
                StackedWeight LatentAttentionBlock::*part, const kernels::Activation& x, void* y,
                int32_t y_stride, int32_t column, const int32_t* y_rows) const {
    std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
    tasks.clear();
    for (int32_t h = 0; h < shape_.q_heads; ++h) {
      for (const LaunchMember& member : launch.members) {
        const StackedWeight& weight = Of(member).*part;
        const uint64_t offset = static_cast<uint64_t>(h) * static_cast<uint64_t>(column);
        tasks.push_back({.weight = weight.Part(h),
                         .y = static_cast<std::byte*>(y) + offset * element_bytes_,
                         .y_stride = y_stride,
                         .out = weight.out,
                         .row_begin = h * launch.rows + member.row_begin,
                         .row_count = member.row_count});
      }
    }
    own.all.kernel(*launch.context, {.x = x, .in = own.all.in, .tasks = tasks, .y_rows = y_rows});
  }

  Status BindAttributes(const Attributes& attributes) {
    TESSERA_ASSIGN_OR_RETURN(width_, attributes.Integer("width", 1, 1 << 20));
    TESSERA_ASSIGN_OR_RETURN(shape_.q_heads, attributes.Integer("q_heads", 1, 1 << 12));
    TESSERA_ASSIGN_OR_RETURN(shape_.rank, attributes.Integer("kv_lora_rank", 1, 1 << 14));
    TESSERA_ASSIGN_OR_RETURN(shape_.nope_dim, attributes.Integer("qk_nope_head_dim", 1, 1 << 12));
    TESSERA_ASSIGN_OR_RETURN(shape_.rope_dim, attributes.Integer("qk_rope_head_dim", 2, 1 << 12));
    TESSERA_ASSIGN_OR_RETURN(v_dim_, attributes.Integer("v_head_dim", 1, 1 << 12));
    if (attributes.Has("q_lora_rank")) {
      TESSERA_ASSIGN_OR_RETURN(q_rank_, attributes.Integer("q_lora_rank", 1, 1 << 16));
    }
    TESSERA_ASSIGN_OR_RETURN(settings_, NormSettingsOf(attributes));
    TESSERA_ASSIGN_OR_RETURN(rotary_index_, attributes.Integer("rotary", 0, 15));
    TESSERA_ASSIGN_OR_RETURN(const std::string style, attributes.Text("rope_style"));
    if (style != "half" && style != "interleaved") {
      return Error(absl::StatusCode::kUnimplemented,
                   {.what = absl::StrCat("a latent_attention block has rope_style \"", style, "\""),
                    .why = "the known ones are half and interleaved"});
    }
    style_ = style == "half" ? kernels::RopeStyle::kHalf : kernels::RopeStyle::kInterleaved;
    rotary_dim_ = shape_.rope_dim;
    double scale = 1.0 / std::sqrt(static_cast<double>(shape_.nope_dim + shape_.rope_dim));
    if (attributes.Has("scale")) {
      TESSERA_ASSIGN_OR_RETURN(scale, attributes.Number("scale", 0, 1e6));
    }
    scale_ = static_cast<float>(scale);
    return absl::OkStatus();
  }

  // First of all kernels, so that a backend without latent attention says so.
  Status BindState(const BindContext& context) {
    const TensorRef* kv_a = context.manifest.Find("kv_a");
    const kernels::DType weight = kv_a != nullptr ? kv_a->dtype : kernels::DType::kF32;
    // No selector reads latents: they have no key statistics.
    shape_.kv = {.dtype = KvDTypeFor(context, weight, kernels::Backend::KvPages::kLatents),
                 .kv_heads = 1,
                 .head_dim = static_cast<uint32_t>(latent_width()),
                 .latent = true};
    const kernels::Catalog& catalog = context.backend.catalog();
    TESSERA_ASSIGN_OR_RETURN(attention_kernel_,
                             catalog.Find<kernels::LatentAttentionOp>({.shape = shape_}));
    TESSERA_ASSIGN_OR_RETURN(
        append_kernel_, catalog.Find<kernels::LatentAppendOp>({.shape = shape_, .style = style_}));
    state_.push_back({.kind = kvcache::StateKind::kPaged, .format = shape_.kv});
    attention_shape_ = {.kv = shape_.kv, .q_heads = shape_.q_heads};
    return absl::OkStatus();
  }

  Status BindWeights(const BindContext& context) {
    const auto bind = [&](Part& part, const char* role, const char* bias, int32_t out,
                          int32_t in) -> Status {
      const auto rows = static_cast<uint64_t>(out);
      TESSERA_ASSIGN_OR_RETURN(part.weight,
                               BindWeight(context, role, rows, static_cast<uint64_t>(in)));
      TESSERA_ASSIGN_OR_RETURN(part.bias, BindVector(context, bias, rows, Presence::kOptional));
      return absl::OkStatus();
    };
    TESSERA_ASSIGN_OR_RETURN(
        norm_, BindNorm(context, "norm", settings_.kind, static_cast<uint64_t>(width_)));
    if (q_rank_ > 0) {
      TESSERA_RETURN_IF_ERROR(bind(q_a_, "q_a", "q_a_bias", q_rank_, width_));
      TESSERA_ASSIGN_OR_RETURN(q_a_norm_, BindNorm(context, "q_a_norm", kernels::NormKind::kRms,
                                                   static_cast<uint64_t>(q_rank_)));
      TESSERA_RETURN_IF_ERROR(bind(q_, "q_b", "q_b_bias", q_width(), q_rank_));
    } else {
      TESSERA_RETURN_IF_ERROR(bind(q_, "q", "q_bias", q_width(), width_));
    }
    TESSERA_RETURN_IF_ERROR(bind(kv_a_, "kv_a", "kv_a_bias", latent_width(), width_));
    TESSERA_ASSIGN_OR_RETURN(
        kv_a_norm_,
        BindVector(context, "kv_a_norm", static_cast<uint64_t>(shape_.rank), Presence::kRequired));
    TESSERA_ASSIGN_OR_RETURN(
        k_b_, BindStackedWeight(context, "k_b", shape_.q_heads, shape_.rank, shape_.nope_dim));
    TESSERA_ASSIGN_OR_RETURN(
        v_b_, BindStackedWeight(context, "v_b", shape_.q_heads, v_dim_, shape_.rank));
    return bind(o_, "o", "o_bias", width_, o_width());
  }

  Status BindInputs(const BindContext& context) {
    element_bytes_ = context.backend.activation_bytes();
    BoundWeight* const readers[] = {q_rank_ > 0 ? &q_a_.weight : &q_.weight, &kv_a_.weight};
    TESSERA_RETURN_IF_ERROR(norm_input_.Bind(context, width_, settings_, false, readers));
    if (q_rank_ > 0) {
      TESSERA_ASSIGN_OR_RETURN(q_norm_kernel_,
                               context.backend.catalog().Find<kernels::NormOp>(
                                   {.width = q_rank_, .input = kernels::NormInput::kActivations}));
      BoundWeight* const q_b[] = {&q_.weight};
      TESSERA_RETURN_IF_ERROR(q_input_.Bind(context, q_rank_, q_b));
    }
    BoundWeight* const k_b[] = {&k_b_.all};
    TESSERA_RETURN_IF_ERROR(nope_input_.Bind(context, shape_.nope_dim, k_b));
    BoundWeight* const v_b[] = {&v_b_.all};
    TESSERA_RETURN_IF_ERROR(value_input_.Bind(context, shape_.rank, v_b));
    BoundWeight* const o[] = {&o_.weight};
    TESSERA_RETURN_IF_ERROR(output_.Bind(context, o_width(), o));
    const auto bytes = [&](int32_t width) {
      return RowBytes(element_bytes_, static_cast<uint64_t>(width));
    };
    workspace_bytes_per_row_ =
        norm_input_.workspace_bytes_per_row() + bytes(latent_width()) + bytes(q_width()) +
        output_.workspace_bytes_per_row() +
        static_cast<uint64_t>(shape_.q_heads) *
            (nope_input_.workspace_bytes_per_row() + bytes(latent_width()) +
             value_input_.workspace_bytes_per_row() + RowBytes(sizeof(int32_t), 1));
    if (q_rank_ > 0) {
      workspace_bytes_per_row_ += bytes(q_rank_) + q_input_.workspace_bytes_per_row();
    }
    linear_tasks_ = static_cast<size_t>(shape_.q_heads);
    max_width_ =
        static_cast<uint64_t>(std::max({width_, q_width(), o_width(), latent_width(), q_rank_}));
    return absl::OkStatus();
  }

  int32_t width_ = 0;
  int32_t q_rank_ = 0;  // 0: queries are made from the residual stream at once
  int32_t v_dim_ = 0;
  NormSettings settings_;
  float scale_ = 0;
  kernels::RopeStyle style_ = kernels::RopeStyle::kInterleaved;
  kernels::LatentShape shape_;
  BoundNorm norm_, q_a_norm_;
  BoundVector kv_a_norm_;
  Part q_a_, q_, kv_a_, o_;
  StackedWeight k_b_;  // of each head [rank, nope]
  StackedWeight v_b_;  // of each head [v, rank]
  uint64_t element_bytes_ = 0;
  NormedInput norm_input_;
  LinearInput q_input_, nope_input_, value_input_, output_;
  kernels::Kernel<kernels::NormOp> q_norm_kernel_;
  kernels::Kernel<kernels::LatentAppendOp> append_kernel_;
  kernels::Kernel<kernels::LatentAttentionOp> attention_kernel_;
};

}  // namespace

void Register_latent_attention(BlockTypeRegistry& registry) {
  registry.Add({.name = "latent_attention", .bind = LatentAttentionBlock::Bind});
}

}  // namespace tessera::blockzoo
