#include "blockzoo/block_parts.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;
using kernels::NormKind;

StatusOr<const TensorRef*> FindTensor(const BindContext& context, const std::string& role) {
  const TensorRef* ref = context.manifest.Find(role);
  if (ref == nullptr) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("a block of type ", context.manifest.type,
                                       " has no tensor \"", role, "\""),
                  .why = "the block's manifest names none of that role",
                  .fix = "import the checkpoint again"});
  }
  return ref;
}

Status WrongShape(const BindContext& context, const TensorRef& ref, const std::string& wanted) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("tensor \"", ref.role, "\" of a block of type ",
                                     context.manifest.type, " has shape ", ShapeText(ref.shape)),
                .why = absl::StrCat("its attributes ask for ", wanted),
                .fix = "import the checkpoint again"});
}

}  // namespace

void LaunchScratch::Reserve(size_t members, size_t tasks) {
  linear.reserve(members * tasks);
  norm.reserve(members);
  sinks.reserve(members);
  embed.reserve(members);
  route.reserve(members);
  latent_norm.reserve(members);
}

StatusOr<BoundWeight> BindWeight(const BindContext& context, const std::string& role, uint64_t out,
                                 uint64_t in) {
  TESSERA_ASSIGN_OR_RETURN(const TensorRef* ref, FindTensor(context, role));
  if (ref->shape != Shape{out, in}) {
    return WrongShape(context, *ref, ShapeText({out, in}));
  }
  BoundWeight bound;
  bound.dtype = ref->dtype;
  bound.out = static_cast<int32_t>(out);
  bound.in = static_cast<int32_t>(in);
  TESSERA_ASSIGN_OR_RETURN(bound.kernel, context.backend.catalog().Find<kernels::LinearOp>(
                                             {.weight = ref->dtype,
                                              .in = static_cast<int64_t>(in),
                                              .out = static_cast<int64_t>(out)}));
  TESSERA_ASSIGN_OR_RETURN(bound.packed, context.placer.Place(*ref, out, in, context.source));
  return bound;
}

StatusOr<std::vector<PlacedWeight>> PlaceInOrder(const BindContext& context,
                                                 std::initializer_list<const char*> roles) {
  std::vector<TensorRef> tensors;
  for (const char* role : roles) {
    const TensorRef* ref = context.manifest.Find(role);
    if (ref != nullptr && ref->shape.size() == 2) tensors.push_back(*ref);
  }
  return context.placer.PlaceInOrder(tensors, context.source);
}

StatusOr<BoundVector> BindVector(const BindContext& context, const std::string& role, uint64_t size,
                                 Presence presence) {
  return BindVector(context, role, Shape{size}, presence);
}

StatusOr<BoundVector> BindVector(const BindContext& context, const std::string& role,
                                 const Shape& shape, Presence presence) {
  if (presence == Presence::kOptional && context.manifest.Find(role) == nullptr) {
    return BoundVector();
  }
  TESSERA_ASSIGN_OR_RETURN(const TensorRef* ref, FindTensor(context, role));
  if (ref->shape != shape) return WrongShape(context, *ref, ShapeText(shape));
  if (!kernels::IsFloatType(ref->dtype)) {
    return Error(
        absl::StatusCode::kUnimplemented,
        {.what = absl::StrCat("vector \"", role, "\" has type ", kernels::InfoOf(ref->dtype).name),
         .why = "norm weights and biases are read as F32, F16 or BF16"});
  }
  TESSERA_ASSIGN_OR_RETURN(const WeightHandle bytes, context.source.Canonical(*ref));
  uint64_t size = 1;
  for (const uint64_t dimension : shape) size *= dimension;
  std::vector<float> values(size);
  for (uint64_t i = 0; i < size; ++i) {
    if (ref->dtype == DType::kF32) {
      std::memcpy(&values[i], bytes.data() + 4 * i, 4);
      continue;
    }
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    values[i] = ref->dtype == DType::kF16 ? kernels::F16ToF32(bits) : kernels::BF16ToF32(bits);
  }
  kernels::Memory& memory = context.backend.memory();
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<kernels::Buffer> placed,
                           memory.Allocate(size * sizeof(float), "norms and biases"));
  TESSERA_RETURN_IF_ERROR(memory.Write(std::as_bytes(std::span(values)), placed->data()));
  return BoundVector(std::move(placed));
}

StatusOr<double> NumberOr(const Attributes& attributes, const std::string& name, double low,
                          double high, double otherwise) {
  return attributes.Has(name) ? attributes.Number(name, low, high) : otherwise;
}

Status CheckKnown(const BindContext& context, const KnownNames& known) {
  const auto unknown = [&](const char* what, const std::string& name) {
    return Error(absl::StatusCode::kUnimplemented,
                 {.what = absl::StrCat("a block of type ", context.manifest.type, " has the ", what,
                                       " \"", name, "\""),
                  .why = "blocks of this type know none of that name, and it may change what the "
                         "model computes",
                  .fix = "use a version of Tessera that knows it, or import the checkpoint again"});
  };
  for (const auto& [name, value] : context.manifest.attributes.values()) {
    if (!known.attributes.contains(name)) return unknown("setting", name);
  }
  for (const TensorRef& ref : context.manifest.tensors) {
    if (!known.roles.contains(ref.role)) return unknown("tensor", ref.role);
  }
  return absl::OkStatus();
}

StatusOr<NormSettings> NormSettingsOf(const Attributes& attributes) {
  NormSettings settings;
  TESSERA_ASSIGN_OR_RETURN(const double epsilon, attributes.Number("norm_epsilon", 0, 1));
  settings.epsilon = static_cast<float>(epsilon);
  if (!attributes.Has("norm")) return settings;
  TESSERA_ASSIGN_OR_RETURN(const std::string kind, attributes.Text("norm"));
  if (kind == "layer") {
    settings.kind = NormKind::kLayer;
  } else if (kind == "none") {
    settings.kind = NormKind::kNone;
  } else if (kind != "rms") {
    return Error(absl::StatusCode::kUnimplemented,
                 {.what = absl::StrCat("a block has norm \"", kind, "\""),
                  .why = "the known ones are rms, layer and none"});
  }
  return settings;
}

StatusOr<BoundNorm> BindNorm(const BindContext& context, const std::string& role, NormKind kind,
                             uint64_t width) {
  BoundNorm norm;
  const std::string bias = absl::StrCat(role, "_bias");
  const bool has_weight = kind != NormKind::kNone;
  const bool has_bias = kind == NormKind::kLayer;
  for (const std::string& name : {role, bias}) {
    if (name == role ? has_weight : has_bias) continue;
    if (context.manifest.Find(name) == nullptr) continue;
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("a block of type ", context.manifest.type,
                                       " has the tensor \"", name, "\""),
                  .why = "the norm that its attributes name has no use for it",
                  .fix = "import the checkpoint again"});
  }
  if (has_weight) {
    TESSERA_ASSIGN_OR_RETURN(norm.weight, BindVector(context, role, width, Presence::kRequired));
  }
  if (has_bias) {
    TESSERA_ASSIGN_OR_RETURN(norm.bias, BindVector(context, bias, width, Presence::kOptional));
  }
  return norm;
}

std::span<const kernels::NormTask> NormTasks(const Launch& launch, NormOf norm_of) {
  std::vector<kernels::NormTask>& tasks = launch.scratch->norm;
  tasks.clear();
  for (const LaunchMember& member : launch.members) {
    const BoundNorm& norm = norm_of(member);
    tasks.push_back({.weight = norm.weight.data(),
                     .row_begin = member.row_begin,
                     .row_count = member.row_count,
                     .bias = norm.bias.data()});
  }
  return tasks;
}

DType KvDTypeFor(const BindContext& context, DType weight, kernels::Backend::KvPages pages) {
  switch (context.cache.kv_dtype) {
    case CacheChoice::KvDType::kF32:
      return DType::kF32;
    case CacheChoice::KvDType::kF16:
      return DType::kF16;
    case CacheChoice::KvDType::kBF16:
      return DType::kBF16;
    case CacheChoice::KvDType::kF8:
      return DType::kF8E4M3;
    case CacheChoice::KvDType::kAuto:
      break;
  }
  return context.backend.KvDType(weight, pages);
}

kernels::QuantizedRows Carver::TakeQuantized(uint64_t rows, uint64_t width) {
  kernels::QuantizedRows q8;
  q8.q = Take<int8_t>(rows * width);
  q8.scale = Take<float>(rows * (width / kernels::kQuantGroup));
  q8.sum = Take<int16_t>(rows * (width / kernels::kQuantGroup) * 2);
  return q8;
}

Status LinearInput::Bind(const BindContext& context, int32_t width,
                         std::span<BoundWeight* const> readers) {
  width_ = width;
  element_bytes_ = context.backend.activation_bytes();
  for (const BoundWeight* reader : readers) {
    if (!context.backend.ReadsQuantizedRows(reader->dtype)) continue;
    TESSERA_ASSIGN_OR_RETURN(
        quantize_, context.backend.catalog().Find<kernels::QuantizeRowsOp>({.width = width}));
  }
  return absl::OkStatus();
}

LinearInput::Rows LinearInput::Take(Carver& carver, int64_t rows) const {
  const uint64_t count = static_cast<uint64_t>(rows) * static_cast<uint64_t>(width_);
  Rows taken{.x = carver.TakeActivations(count, element_bytes_), .q8 = {}};
  if (quantize_.run != nullptr) {
    taken.q8 = carver.TakeQuantized(static_cast<uint64_t>(rows), static_cast<uint64_t>(width_));
  }
  return taken;
}

kernels::Activation LinearInput::Ready(const Launch& launch, const Rows& rows) const {
  if (quantize_.run != nullptr) {
    quantize_(*launch.context, {.x = static_cast<const float*>(rows.x),
                                .out = rows.q8,
                                .rows = launch.rows,
                                .width = width_});
  }
  return Of(rows);
}

Status NormedInput::Bind(const BindContext& context, int32_t width, const NormSettings& norm,
                         bool gated, std::span<BoundWeight* const> readers) {
  const kernels::Catalog& catalog = context.backend.catalog();
  width_ = width;
  settings_ = norm;
  std::vector<kernels::Kernel<kernels::LinearOp>> fused;
  for (const BoundWeight* reader : readers) {
    if (norm.kind != NormKind::kRms) break;
    const auto kernel = catalog.Find<kernels::LinearOp>({.weight = reader->dtype,
                                                         .in = reader->in,
                                                         .out = reader->out,
                                                         .normed = true,
                                                         .gated = gated});
    if (kernel.ok()) fused.push_back(*kernel);
  }
  fused_ = fused.size() == readers.size();
  gates_ = fused_ && gated;
  TESSERA_RETURN_IF_ERROR(input_.Bind(context, width, readers));
  if (fused_) {
    size_t next = 0;
    for (BoundWeight* reader : readers) reader->kernel = fused[next++];
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(
      norm_, catalog.Find<kernels::NormOp>(
                 {.kind = norm.kind, .width = width, .quantized = input_.quantizes()}));
  return absl::OkStatus();
}

kernels::LinearOp::Params NormedInput::Begin(const Launch& launch, const LinearInput::Rows& rows,
                                             NormOf norm_of) const {
  if (fused_) {
    return {.x = {.x = rows.x, .q8 = {}},
            .in = width_,
            .residual = launch.residual,
            .x_rows = launch.step_rows,
            .epsilon = settings_.epsilon};
  }
  norm_(*launch.context, {.kind = settings_.kind,
                          .tasks = NormTasks(launch, norm_of),
                          .x = launch.residual,
                          .x_rows = launch.step_rows,
                          .y = rows.x,
                          .width = width_,
                          .epsilon = settings_.epsilon,
                          .q8 = rows.q8});
  return {.x = LinearInput::Of(rows), .in = width_};
}

NormKind PostNormKind(NormKind input) {
  return input == NormKind::kLayer ? NormKind::kLayer : NormKind::kRms;
}

Status ResidualOutput::Bind(const BindContext& context, int32_t width, const NormSettings& norm,
                            bool post_norm) {
  const kernels::Catalog& catalog = context.backend.catalog();
  width_ = width;
  element_bytes_ = context.backend.activation_bytes();
  settings_ = {.kind = PostNormKind(norm.kind), .epsilon = norm.epsilon};
  TESSERA_ASSIGN_OR_RETURN(const double scale,
                           NumberOr(context.manifest.attributes, "residual_scale", -1e6, 1e6, 1.0));
  scale_ = static_cast<float>(scale);
  if (post_norm) {
    TESSERA_ASSIGN_OR_RETURN(
        norm_,
        catalog.Find<kernels::NormOp>(
            {.kind = settings_.kind, .width = width, .input = kernels::NormInput::kActivations}));
  }
  if (post_norm || scale_ != 1.0f) {
    TESSERA_ASSIGN_OR_RETURN(residual_, catalog.Find<kernels::ResidualOp>({.width = width}));
  }
  return absl::OkStatus();
}

void* ResidualOutput::Take(const Launch& launch, Carver& carver) const {
  if (adds_itself()) return launch.residual;
  return carver.TakeActivations(static_cast<uint64_t>(launch.rows) * static_cast<uint64_t>(width_),
                                element_bytes_);
}

void ResidualOutput::Run(const Launch& launch, const kernels::Kernel<kernels::LinearOp>& product,
                         kernels::LinearOp::Params params, void* made, NormOf norm_of) const {
  params.epilogue = epilogue();
  if (adds_itself()) {
    params.y_rows = launch.step_rows;
    product(*launch.context, params);
    return;
  }
  product(*launch.context, params);
  if (norm_.run != nullptr) {
    norm_(*launch.context, {.kind = settings_.kind,
                            .tasks = NormTasks(launch, norm_of),
                            .x = made,
                            .y = made,
                            .width = width_,
                            .epsilon = settings_.epsilon});
  }
  residual_(*launch.context, {.x = made,
                              .y_rows = launch.step_rows,
                              .y = launch.residual,
                              .rows = launch.rows,
                              .width = width_,
                              .scale = scale_});
}

}  // namespace tessera::blockzoo
