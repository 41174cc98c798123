#include "blockzoo/attention_part.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "blockzoo/layer_block.h"

namespace tessera::blockzoo {
namespace {

using kernels::NormKind;

Status Unknown(const char* attribute, const std::string& value, const char* known) {
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat("an attention block has ", attribute, " \"", value, "\""),
                .why = absl::StrCat("the known ones are ", known)});
}

}  // namespace

const AttentionPart& AttentionPart::Of(const LaunchMember& member) {
  return static_cast<const LayerBlock&>(*member.block).attention();
}

Status AttentionPart::Bind(const BindContext& context, KnownNames& known) {
  known.attributes.insert({"width", "q_heads", "kv_heads", "head_dim", "norm", "norm_epsilon",
                           "rotary", "rotary_dim", "rope_style", "scale", "softcap", "window",
                           "qk_norm", "residual_scale"});
  known.roles.insert({"norm", "norm_bias", "q", "k", "v", "o", "q_bias", "k_bias", "v_bias",
                      "o_bias", "q_norm", "k_norm", "post_norm", "post_norm_bias", "sinks"});
  TESSERA_RETURN_IF_ERROR(BindShape(context.manifest.attributes));
  TESSERA_RETURN_IF_ERROR(BindWeights(context));
  TESSERA_RETURN_IF_ERROR(BindHeadNorms(context));
  return BindKernels(context);
}

Status AttentionPart::BindShape(const Attributes& attributes) {
  TESSERA_ASSIGN_OR_RETURN(width_, attributes.Integer("width", 1, 1 << 20));
  TESSERA_ASSIGN_OR_RETURN(q_heads_, attributes.Integer("q_heads", 1, 1 << 12));
  TESSERA_ASSIGN_OR_RETURN(const int64_t kv_heads, attributes.Integer("kv_heads", 1, q_heads_));
  TESSERA_ASSIGN_OR_RETURN(const int64_t head_dim, attributes.Integer("head_dim", 1, 1 << 12));
  TESSERA_ASSIGN_OR_RETURN(settings_, NormSettingsOf(attributes));
  if (q_heads_ % kv_heads != 0) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("an attention block has ", q_heads_, " query heads and ",
                                       kv_heads, " KV heads"),
                  .why = "query heads must be a multiple of KV heads"});
  }
  kv_.kv_heads = static_cast<uint32_t>(kv_heads);
  kv_.head_dim = static_cast<uint32_t>(head_dim);
  q_width_ = static_cast<int32_t>(q_heads_ * head_dim);
  kv_width_ = static_cast<int32_t>(kv_heads * head_dim);
  TESSERA_RETURN_IF_ERROR(BindRotation(attributes, head_dim));
  return BindScores(attributes, head_dim);
}

Status AttentionPart::BindRotation(const Attributes& attributes, int64_t head_dim) {
  if (!attributes.Has("rotary")) {
    if (!attributes.Has("rotary_dim")) return absl::OkStatus();
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "an attention block has the setting rotary_dim",
                  .why = "it names no rotary settings: its heads are not rotated"});
  }
  TESSERA_ASSIGN_OR_RETURN(rotary_index_, attributes.Integer("rotary", 0, 15));
  TESSERA_ASSIGN_OR_RETURN(const std::string style, attributes.Text("rope_style"));
  if (style != "half" && style != "interleaved") {
    return Unknown("rope_style", style, "half and interleaved");
  }
  style_ = style == "half" ? kernels::RopeStyle::kHalf : kernels::RopeStyle::kInterleaved;
  rotary_dim_ = static_cast<int32_t>(head_dim);
  if (attributes.Has("rotary_dim")) {
    TESSERA_ASSIGN_OR_RETURN(rotary_dim_, attributes.Integer("rotary_dim", 2, head_dim));
  }
  return absl::OkStatus();
}

Status AttentionPart::BindScores(const Attributes& attributes, int64_t head_dim) {
  const double usual = 1.0 / std::sqrt(static_cast<double>(head_dim));
  TESSERA_ASSIGN_OR_RETURN(const double scale, NumberOr(attributes, "scale", 0, 1e6, usual));
  scale_ = static_cast<float>(scale);
  if (attributes.Has("softcap")) {
    TESSERA_ASSIGN_OR_RETURN(const double softcap, attributes.Number("softcap", 1e-6, 1e6));
    softcap_ = static_cast<float>(softcap);
  }
  if (attributes.Has("window")) {
    TESSERA_ASSIGN_OR_RETURN(window_, attributes.Integer("window", 1, 1 << 30));
  }
  return absl::OkStatus();
}

Status AttentionPart::BindWeights(const BindContext& context) {
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
  // One product reads them where they follow one another.
  TESSERA_ASSIGN_OR_RETURN(const std::vector<PlacedWeight> in_order,
                           PlaceInOrder(context, {"q", "k", "v"}));
  for (int i = 0; i < kParts; ++i) {
    const Role& role = roles[i];
    TESSERA_ASSIGN_OR_RETURN(parts_[i].weight, BindWeight(context, role.weight, role.out, role.in));
    TESSERA_ASSIGN_OR_RETURN(parts_[i].bias,
                             BindVector(context, role.bias, role.out, Presence::kOptional));
  }
  TESSERA_ASSIGN_OR_RETURN(norm_, BindNorm(context, "norm", settings_.kind, width_));
  const bool post_norm = context.manifest.Find("post_norm") != nullptr;
  TESSERA_ASSIGN_OR_RETURN(
      post_norm_, BindNorm(context, "post_norm",
                           post_norm ? PostNormKind(settings_.kind) : NormKind::kNone, width_));
  TESSERA_RETURN_IF_ERROR(output_.Bind(context, width_, settings_, post_norm));
  TESSERA_ASSIGN_OR_RETURN(sinks_, BindVector(context, "sinks", q_heads_, Presence::kOptional));
  kv_.dtype = KvDTypeFor(context, parts_[kK].weight.dtype, kernels::Backend::KvPages::kHeads);
  kv_.key_statistics = context.cache.key_statistics == CacheChoice::KeyStatistics::kOn;
  return absl::OkStatus();
}

Status AttentionPart::BindHeadNorms(const BindContext& context) {
  const Attributes& attributes = context.manifest.attributes;
  std::string kind = "none";
  if (attributes.Has("qk_norm")) {
    TESSERA_ASSIGN_OR_RETURN(kind, attributes.Text("qk_norm"));
    if (kind != "head" && kind != "full" && kind != "head_layer") {
      return Unknown("qk_norm", kind, "head, full and head_layer");
    }
  }
  const auto kv_heads = static_cast<int32_t>(kv_.kv_heads);
  TESSERA_ASSIGN_OR_RETURN(q_norm_, BindHeadNorm(context, kind, "q_norm", q_heads_, query_norm_));
  TESSERA_ASSIGN_OR_RETURN(k_norm_, BindHeadNorm(context, kind, "k_norm", kv_heads, key_norm_));
  return absl::OkStatus();
}

StatusOr<BoundNorm> AttentionPart::BindHeadNorm(const BindContext& context, const std::string& kind,
                                                const char* role, int32_t heads,
                                                HeadNorm& norm) const {
  if (kind == "none") return BindNorm(context, role, NormKind::kNone, 0);
  const auto head_dim = static_cast<int32_t>(kv_.head_dim);
  const bool layer = kind == "head_layer";
  const bool full = kind == "full";
  norm.kind = layer ? NormKind::kLayer : NormKind::kRms;
  norm.width = full ? heads * head_dim : head_dim;
  norm.groups = full ? 1 : heads;
  norm.weight_stride = layer ? head_dim : 0;
  TESSERA_ASSIGN_OR_RETURN(norm.kernel, context.backend.catalog().Find<kernels::NormOp>(
                                            {.kind = norm.kind,
                                             .width = norm.width,
                                             .groups = norm.groups,
                                             .input = kernels::NormInput::kActivations}));
  const Shape shape = layer ? Shape{static_cast<uint64_t>(heads), kv_.head_dim}
                            : Shape{static_cast<uint64_t>(norm.width)};
  BoundNorm bound;
  TESSERA_ASSIGN_OR_RETURN(bound.weight, BindVector(context, role, shape, Presence::kRequired));
  return bound;
}

Status AttentionPart::BindKernels(const BindContext& context) {
  const kernels::Catalog& catalog = context.backend.catalog();
  const kernels::RopeAppendOp::Desc append = {
      .kv = kv_, .style = style_, .q_heads = q_heads_, .rotary_dim = rotary_dim_};
  kernels::AttentionOp::Desc attention = {.kv = kv_,
                                          .q_heads = q_heads_,
                                          .window = window_,
                                          .softcap = softcap_ > 0,
                                          .sinks = !sinks_.empty(),
                                          .append = append};
  if (const auto fused = catalog.Find<kernels::AttentionOp>(attention); fused.ok()) {
    attention_kernel_ = *fused;
  } else {
    TESSERA_ASSIGN_OR_RETURN(rope_kernel_, catalog.Find<kernels::RopeAppendOp>(append));
    attention.append.reset();
    TESSERA_ASSIGN_OR_RETURN(attention_kernel_, catalog.Find<kernels::AttentionOp>(attention));
  }
  BoundWeight* const readers[] = {&parts_[kQ].weight, &parts_[kK].weight, &parts_[kV].weight};
  TESSERA_RETURN_IF_ERROR(norm_input_.Bind(context, width_, settings_, false, readers));
  BoundWeight* const output[] = {&parts_[kO].weight};
  element_bytes_ = context.backend.activation_bytes();
  return attended_input_.Bind(context, q_width_, output);
}

uint64_t AttentionPart::max_width() const {
  return static_cast<uint64_t>(std::max(width_, q_width_));
}

uint64_t AttentionPart::workspace_bytes_per_row() const {
  return norm_input_.workspace_bytes_per_row() +
         RowBytes(element_bytes_, static_cast<uint64_t>(q_width_)) +
         2 * RowBytes(element_bytes_, static_cast<uint64_t>(kv_width_)) +
         attended_input_.workspace_bytes_per_row() + output_.workspace_bytes_per_row();
}

std::vector<kernels::LinearGroup> AttentionPart::products() const {
  kernels::LinearGroup qkv{.weight = parts_[kQ].weight.dtype, .in = width_};
  qkv.outs = {q_width_, kv_width_, kv_width_};
  return {qkv, OutputProduct()};
}

kernels::LinearGroup AttentionPart::OutputProduct() const {
  return {.weight = parts_[kO].weight.dtype,
          .in = q_width_,
          .outs = {width_},
          .epilogue = output_.epilogue()};
}

AttentionPart::Computed AttentionPart::Compute(const Launch& launch, Carver& carver) const {
  const LinearInput::Rows normed = norm_input_.Take(carver, launch.rows);
  const Heads heads = TakeHeads(carver, launch.rows);
  const Computed computed{.attended = attended_input_.Take(carver, launch.rows),
                          .output = output_.Take(launch, carver)};
  const NormOf norm_of = [](const LaunchMember& member) -> const BoundNorm& {
    return Of(member).norm_;
  };
  RunQkv(launch, norm_input_.Begin(launch, normed, norm_of), heads);
  RunHeadNorm(
      launch, query_norm_,
      [](const LaunchMember& member) -> const BoundNorm& { return Of(member).q_norm_; }, heads.q);
  RunHeadNorm(
      launch, key_norm_,
      [](const LaunchMember& member) -> const BoundNorm& { return Of(member).k_norm_; }, heads.k);
  Attend(launch, Append(launch, heads), computed.attended.x);
  return computed;
}

AttentionPart::Heads AttentionPart::TakeHeads(Carver& carver, int64_t rows) const {
  const auto take = [&](int64_t width) {
    return static_cast<std::byte*>(
        carver.TakeActivations(static_cast<uint64_t>(rows * width), element_bytes_));
  };
  if (!joins_heads()) {
    return {.q = take(q_width_),
            .k = take(kv_width_),
            .v = take(kv_width_),
            .q_stride = q_width_,
            .kv_stride = kv_width_};
  }
  const int64_t width = q_width_ + int64_t{2} * kv_width_;
  std::byte* q = take(width);
  std::byte* k = q + static_cast<uint64_t>(q_width_) * element_bytes_;
  return {.q = q,
          .k = k,
          .v = k + static_cast<uint64_t>(kv_width_) * element_bytes_,
          .q_stride = width,
          .kv_stride = width};
}

void AttentionPart::Join(const Launch& launch, const Computed& computed) const {
  std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
  tasks.clear();
  for (const LaunchMember& member : launch.members) {
    tasks.push_back(Task(member, Of(member).parts_[kO], computed.output, width_));
  }
  output_.Run(
      launch, parts_[kO].weight.kernel,
      {.x = attended_input_.Ready(launch, computed.attended), .in = q_width_, .tasks = tasks},
      computed.output,
      [](const LaunchMember& member) -> const BoundNorm& { return Of(member).post_norm_; });
}

kernels::LinearTask AttentionPart::Task(const LaunchMember& member, const Part& part, void* y,
                                        int64_t y_stride) {
  return {.weight = part.weight.packed.data(),
          .bias = part.bias.data(),
          .y = y,
          .y_stride = y_stride,
          .out = part.weight.out,
          .row_begin = member.row_begin,
          .row_count = member.row_count,
          .norm = Of(member).norm_.weight.data()};
}

// Neighbours of one weight type share a launch.
void AttentionPart::RunQkv(const Launch& launch, kernels::LinearOp::Params params,
                           const Heads& heads) const {
  void* const outputs[] = {heads.q, heads.k, heads.v};
  std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
  tasks.clear();
  for (int part = kQ; part <= kV; ++part) {
    for (const LaunchMember& member : launch.members) {
      tasks.push_back(Task(member, Of(member).parts_[part], outputs[part],
                           part == kQ ? heads.q_stride : heads.kv_stride));
    }
    if (part == kV || parts_[part].weight.dtype != parts_[part + 1].weight.dtype) {
      params.tasks = tasks;
      parts_[part].weight.kernel(*launch.context, params);
      tasks.clear();
    }
  }
}

void AttentionPart::RunHeadNorm(const Launch& launch, const HeadNorm& norm, NormOf norm_of,
                                void* x) const {
  if (norm.kernel.run == nullptr) return;
  norm.kernel(*launch.context, {.kind = norm.kind,
                                .tasks = NormTasks(launch, norm_of),
                                .x = x,
                                .y = x,
                                .width = norm.width,
                                .groups = norm.groups,
                                .weight_stride = norm.weight_stride,
                                .epsilon = settings_.epsilon});
}

kernels::RopeAppendOp::Params AttentionPart::Append(const Launch& launch,
                                                    const Heads& heads) const {
  const RotaryRows rotary = rotary_index_ < 0 ? RotaryRows() : launch.rotary[rotary_index_];
  return {.kv = kv_,
          .style = style_,
          .rows = launch.rows,
          .q_heads = q_heads_,
          .rotary_dim = rotary_dim_,
          .q = heads.q,
          .k = heads.k,
          .v = heads.v,
          .q_stride = heads.q_stride,
          .kv_stride = heads.kv_stride,
          .cosine = rotary.cosine,
          .sine = rotary.sine,
          .rotary_rows = launch.step_rows,
          .arena = launch.arena,
          .page = launch.append_page,
          .slot = launch.append_slot};
}

void AttentionPart::Attend(const Launch& launch, const kernels::RopeAppendOp::Params& append,
                           void* out) const {
  const bool fused = rope_kernel_.run == nullptr;
  if (!fused) rope_kernel_(*launch.context, append);
  std::vector<kernels::AttentionSinks>& sinks = launch.scratch->sinks;
  sinks.clear();
  for (const LaunchMember& member : launch.members) {
    if (sinks_.empty()) break;
    sinks.push_back({.sinks = Of(member).sinks_.data(),
                     .row_begin = member.row_begin,
                     .row_count = member.row_count});
  }
  const kernels::LinearGroup reader = OutputProduct();
  attention_kernel_(*launch.context, {.kv = kv_,
                                      .q_heads = q_heads_,
                                      .scale = scale_,
                                      .softcap = softcap_,
                                      .window = window_,
                                      .sinks = sinks,
                                      .append = fused ? &append : nullptr,
                                      .q = append.q,
                                      .q_stride = append.q_stride,
                                      .out = out,
                                      .arena = launch.arena,
                                      .plan = launch.attention_plan,
                                      .table = launch.attention_table,
                                      .reader = &reader});
}

}  // namespace tessera::blockzoo
