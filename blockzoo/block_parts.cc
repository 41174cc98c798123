#include "blockzoo/block_parts.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;

StatusOr<const TensorRef*> FindTensor(const BindContext& context, const char* role) {
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
  std::string shape;
  for (uint64_t dim : ref.shape) absl::StrAppend(&shape, shape.empty() ? "" : ", ", dim);
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("tensor \"", ref.role, "\" of a block of type ",
                                     context.manifest.type, " has shape [", shape, "]"),
                .why = absl::StrCat("its attributes ask for ", wanted),
                .fix = "import the checkpoint again"});
}

}  // namespace

void LaunchScratch::Reserve(size_t members) {
  linear.reserve(members * 4);
  norm.reserve(members);
  embed.reserve(members);
}

StatusOr<BoundWeight> BindWeight(const BindContext& context, const char* role, uint64_t out,
                                 uint64_t in) {
  TESSERA_ASSIGN_OR_RETURN(const TensorRef* ref, FindTensor(context, role));
  if (ref->shape != Shape{out, in}) {
    return WrongShape(context, *ref, absl::StrCat("[", out, ", ", in, "]"));
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

StatusOr<BoundVector> BindVector(const BindContext& context, const char* role, uint64_t size,
                                 Presence presence) {
  if (presence == Presence::kOptional && context.manifest.Find(role) == nullptr) {
    return BoundVector();
  }
  TESSERA_ASSIGN_OR_RETURN(const TensorRef* ref, FindTensor(context, role));
  if (ref->shape != Shape{size}) {
    return WrongShape(context, *ref, absl::StrCat("[", size, "]"));
  }
  if (!kernels::IsFloatType(ref->dtype)) {
    return Error(
        absl::StatusCode::kUnimplemented,
        {.what = absl::StrCat("vector \"", role, "\" has type ", kernels::InfoOf(ref->dtype).name),
         .why = "norm weights and biases are read as F32, F16 or BF16"});
  }
  TESSERA_ASSIGN_OR_RETURN(const WeightHandle bytes, context.source.Canonical(*ref));
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

DType KvDTypeFor(const BindContext& context, DType weight) {
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
  return context.backend.KvDType(weight);
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
  return {.x = rows.x, .q8 = rows.q8};
}

Status NormedInput::Bind(const BindContext& context, int32_t width, float epsilon, bool gated,
                         std::span<BoundWeight* const> readers) {
  const kernels::Catalog& catalog = context.backend.catalog();
  width_ = width;
  epsilon_ = epsilon;
  std::vector<kernels::Kernel<kernels::LinearOp>> fused;
  for (const BoundWeight* reader : readers) {
    const auto kernel = catalog.Find<kernels::LinearOp>({.weight = reader->dtype,
                                                         .in = reader->in,
                                                         .out = reader->out,
                                                         .normed = true,
                                                         .gated = gated});
    if (kernel.ok()) fused.push_back(*kernel);
  }
  fused_ = fused.size() == readers.size();
  gates_ = fused_ && gated;
  if (fused_) {
    size_t next = 0;
    for (BoundWeight* reader : readers) reader->kernel = fused[next++];
  } else {
    TESSERA_ASSIGN_OR_RETURN(norm_, catalog.Find<kernels::RmsNormOp>({.width = width}));
  }
  return input_.Bind(context, width, readers);
}

kernels::LinearOp::Params NormedInput::Begin(const Launch& launch, const LinearInput::Rows& rows,
                                             NormOf norm_of) const {
  if (fused_) {
    return {.x = {.x = rows.x, .q8 = {}},
            .in = width_,
            .residual = launch.residual,
            .x_rows = launch.step_rows,
            .epsilon = epsilon_};
  }
  std::vector<kernels::RmsNormTask>& tasks = launch.scratch->norm;
  tasks.clear();
  for (const LaunchMember& member : launch.members) {
    tasks.push_back(
        {.weight = norm_of(member), .row_begin = member.row_begin, .row_count = member.row_count});
  }
  norm_(*launch.context, {.tasks = tasks,
                          .x = launch.residual,
                          .x_rows = launch.step_rows,
                          .y = rows.x,
                          .width = width_,
                          .epsilon = epsilon_});
  return {.x = input_.Ready(launch, rows), .in = width_};
}

}  // namespace tessera::blockzoo
