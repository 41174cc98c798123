// The attention block: x += o(attend(rope(q(norm x)), rope(k(norm x)), v(norm x))), keys and values
// in pages.
#include <array>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "blockzoo/block_parts.h"
#include "blockzoo/block_type.h"

namespace tessera::blockzoo {
namespace {

class AttentionBlock final : public BoundBlock {
 public:
  static StatusOr<std::unique_ptr<BoundBlock>> Bind(const BindContext& context) {
    auto block = std::make_unique<AttentionBlock>();
    TESSERA_RETURN_IF_ERROR(block->BindAttributes(context.manifest.attributes));
    TESSERA_RETURN_IF_ERROR(block->BindWeights(context));
    TESSERA_RETURN_IF_ERROR(block->BindKernels(context));
    return std::unique_ptr<BoundBlock>(std::move(block));
  }

  void Run(const Launch& launch) const override {
    LaunchScratch& scratch = *launch.scratch;
    const int64_t rows = launch.rows;
    Carver carver(scratch.workspace);
    const LinearInput::Rows normed = norm_input_.Take(carver, rows);
    void* q = carver.TakeActivations(rows * q_width_, element_bytes_);
    void* k = carver.TakeActivations(rows * kv_width_, element_bytes_);
    void* v = carver.TakeActivations(rows * kv_width_, element_bytes_);
    const LinearInput::Rows attended = output_.Take(carver, rows);

    RunQkv(launch, norm_input_.Begin(launch, normed, NormOf), {q, k, v});
    RotateAndAppend(launch, q, k, v);
    attention_kernel_(*launch.context, {.kv = kv_,
                                        .q_heads = q_heads_,
                                        .scale = scale_,
                                        .q = q,
                                        .out = attended.x,
                                        .arena = launch.arena,
                                        .plan = launch.attention_plan,
                                        .table = launch.attention_table});
    scratch.linear.clear();
    for (const LaunchMember& member : launch.members) {
      scratch.linear.push_back(Task(member, Of(member).parts_[kO], launch.residual));
    }
    parts_[kO].weight.kernel(*launch.context, {.x = output_.Ready(launch, attended),
                                               .in = q_width_,
                                               .tasks = scratch.linear,
                                               .epilogue = kernels::Epilogue::kResidual,
                                               .y_rows = launch.step_rows});
  }

 private:
  enum PartIndex { kQ, kK, kV, kO, kParts };
  struct Part {
    BoundWeight weight;
    BoundVector bias;
  };

  static const AttentionBlock& Of(const LaunchMember& member) {
    return static_cast<const AttentionBlock&>(*member.block);
  }

  static const float* NormOf(const LaunchMember& member) { return Of(member).norm_.data(); }

  static kernels::LinearTask Task(const LaunchMember& member, const Part& part, void* y) {
    return {.weight = part.weight.packed.data(),
            .bias = part.bias.data(),
            .y = y,
            .y_stride = part.weight.out,
            .out = part.weight.out,
            .row_begin = member.row_begin,
            .row_count = member.row_count,
            .norm = NormOf(member)};
  }

  // Neighbours of one weight type share a launch.
  void RunQkv(const Launch& launch, kernels::LinearOp::Params params,
              const std::array<void*, 3>& outputs) const {
    std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
    tasks.clear();
    for (int part = kQ; part <= kV; ++part) {
      for (const LaunchMember& member : launch.members) {
        tasks.push_back(Task(member, Of(member).parts_[part], outputs[part]));
      }
      if (part == kV || parts_[part].weight.dtype != parts_[part + 1].weight.dtype) {
        params.tasks = tasks;
        parts_[part].weight.kernel(*launch.context, params);
        tasks.clear();
      }
    }
  }

  void RotateAndAppend(const Launch& launch, void* q, const void* k, const void* v) const {
    const RotaryRows& rotary = launch.rotary[rotary_index_];
    rope_kernel_(*launch.context, {.kv = kv_,
                                   .style = style_,
                                   .rows = launch.rows,
                                   .q_heads = q_heads_,
                                   .rotary_dim = rotary_dim_,
                                   .q = q,
                                   .k = k,
                                   .v = v,
                                   .cosine = rotary.cosine,
                                   .sine = rotary.sine,
                                   .rotary_rows = launch.step_rows,
                                   .arena = launch.arena,
                                   .page = launch.append_page,
                                   .slot = launch.append_slot});
  }

  Status BindAttributes(const Attributes& attributes) {
    TESSERA_ASSIGN_OR_RETURN(width_, attributes.Integer("width", 1, 1 << 20));
    TESSERA_ASSIGN_OR_RETURN(q_heads_, attributes.Integer("q_heads", 1, 1 << 12));
    TESSERA_ASSIGN_OR_RETURN(const int64_t kv_heads, attributes.Integer("kv_heads", 1, q_heads_));
    TESSERA_ASSIGN_OR_RETURN(const int64_t head_dim, attributes.Integer("head_dim", 1, 1 << 12));
    TESSERA_ASSIGN_OR_RETURN(const double epsilon, attributes.Number("norm_epsilon", 0, 1));
    TESSERA_ASSIGN_OR_RETURN(rotary_index_, attributes.Integer("rotary", 0, 15));
    TESSERA_ASSIGN_OR_RETURN(const std::string style, attributes.Text("rope_style"));
    if (q_heads_ % kv_heads != 0) {
      return Error(absl::StatusCode::kInvalidArgument,
                   {.what = absl::StrCat("an attention block has ", q_heads_, " query heads and ",
                                         kv_heads, " KV heads"),
                    .why = "query heads must be a multiple of KV heads"});
    }
    if (style != "half" && style != "interleaved") {
      return Error(absl::StatusCode::kUnimplemented,
                   {.what = absl::StrCat("an attention block has rope_style \"", style, "\""),
                    .why = "the known ones are half and interleaved"});
    }
    style_ = style == "half" ? kernels::RopeStyle::kHalf : kernels::RopeStyle::kInterleaved;
    rotary_dim_ = static_cast<int32_t>(head_dim);
    if (attributes.Has("rotary_dim")) {
      TESSERA_ASSIGN_OR_RETURN(rotary_dim_, attributes.Integer("rotary_dim", 2, head_dim));
    }
    scale_ = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
    if (attributes.Has("scale")) {
      TESSERA_ASSIGN_OR_RETURN(const double scale, attributes.Number("scale", 0, 1e6));
      scale_ = static_cast<float>(scale);
    }
    epsilon_ = static_cast<float>(epsilon);
    kv_.kv_heads = static_cast<uint32_t>(kv_heads);
    kv_.head_dim = static_cast<uint32_t>(head_dim);
    q_width_ = static_cast<int32_t>(q_heads_ * head_dim);
    kv_width_ = static_cast<int32_t>(kv_heads * head_dim);
    return absl::OkStatus();
  }

  Status BindWeights(const BindContext& context) {
    struct Role {
      const char* weight;
      const char* bias;
      int32_t out;
      int32_t in;
    };
    const Role roles[kParts] = {{"q", "q_bias", q_width_, width_},
                                {"k", "k_bias", kv_width_, width_},
                                {"v", "v_bias", kv_width_, width_},
                                {"o", "o_bias", width_, q_width_}};
    for (int i = 0; i < kParts; ++i) {
      const Role& role = roles[i];
      TESSERA_ASSIGN_OR_RETURN(parts_[i].weight,
                               BindWeight(context, role.weight, role.out, role.in));
      TESSERA_ASSIGN_OR_RETURN(parts_[i].bias,
                               BindVector(context, role.bias, role.out, Presence::kOptional));
    }
    TESSERA_ASSIGN_OR_RETURN(norm_, BindVector(context, "norm", width_, Presence::kRequired));
    kv_.dtype = KvDTypeFor(context, parts_[kK].weight.dtype);
    kv_.key_statistics = context.cache.key_statistics == CacheChoice::KeyStatistics::kOn;
    state_.push_back({.kind = kvcache::StateKind::kPaged, .format = kv_});
    return absl::OkStatus();
  }

  Status BindKernels(const BindContext& context) {
    const kernels::Catalog& catalog = context.backend.catalog();
    TESSERA_ASSIGN_OR_RETURN(
        rope_kernel_,
        catalog.Find<kernels::RopeAppendOp>(
            {.kv = kv_, .style = style_, .q_heads = q_heads_, .rotary_dim = rotary_dim_}));
    TESSERA_ASSIGN_OR_RETURN(attention_kernel_,
                             catalog.Find<kernels::AttentionOp>({.kv = kv_, .q_heads = q_heads_}));
    BoundWeight* const readers[] = {&parts_[kQ].weight, &parts_[kK].weight, &parts_[kV].weight};
    TESSERA_RETURN_IF_ERROR(norm_input_.Bind(context, width_, epsilon_, false, readers));
    BoundWeight* const output[] = {&parts_[kO].weight};
    TESSERA_RETURN_IF_ERROR(output_.Bind(context, q_width_, output));
    element_bytes_ = context.backend.activation_bytes();
    kernels::LinearGroup qkv{.weight = parts_[kQ].weight.dtype, .in = width_};
    qkv.outs = {q_width_, kv_width_, kv_width_};
    products_ = {qkv,
                 {.weight = parts_[kO].weight.dtype,
                  .in = q_width_,
                  .outs = {width_},
                  .epilogue = kernels::Epilogue::kResidual}};
    attention_shape_ = {.kv = kv_, .q_heads = q_heads_};
    max_width_ = std::max(width_, q_width_);
    workspace_bytes_per_row_ =
        norm_input_.workspace_bytes_per_row() + RowBytes(element_bytes_, q_width_) +
        2 * RowBytes(element_bytes_, kv_width_) + output_.workspace_bytes_per_row();
    return absl::OkStatus();
  }

  int32_t width_ = 0;
  int32_t q_heads_ = 0;
  int32_t q_width_ = 0;
  int32_t kv_width_ = 0;
  float epsilon_ = 0;
  float scale_ = 0;
  kernels::RopeStyle style_ = kernels::RopeStyle::kHalf;
  kernels::KvFormat kv_;
  uint64_t element_bytes_ = 0;
  BoundVector norm_;
  std::array<Part, kParts> parts_;
  NormedInput norm_input_;  // q, k and v read it
  LinearInput output_;      // what the heads attended, read by o
  kernels::Kernel<kernels::RopeAppendOp> rope_kernel_;
  kernels::Kernel<kernels::AttentionOp> attention_kernel_;
};

}  // namespace

void Register_attention(BlockTypeRegistry& registry) {
  registry.Add({.name = "attention", .bind = AttentionBlock::Bind});
}

}  // namespace tessera::blockzoo
