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
  TESSERA_ASSIGN_OR_RETURN(const kernels::WeightLayout layout,
                           context.backend.LinearLayout(ref->dtype, out, in));
  if (layout.transform.empty()) {
    TESSERA_ASSIGN_OR_RETURN(bound.packed, context.source.Canonical(*ref));
    return bound;
  }
  const auto derive = [&](std::span<const std::byte> canonical, std::span<std::byte> derived) {
    context.backend.PackLinear(ref->dtype, out, in, canonical.data(), derived.data());
  };
  TESSERA_ASSIGN_OR_RETURN(bound.packed,
                           context.source.Derived(*ref, layout.transform, layout.bytes, derive));
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
  BoundVector values(size);
  for (uint64_t i = 0; i < size; ++i) {
    if (ref->dtype == DType::kF32) {
      std::memcpy(&values[i], bytes.data() + 4 * i, 4);
      continue;
    }
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    values[i] = ref->dtype == DType::kF16 ? kernels::F16ToF32(bits) : kernels::BF16ToF32(bits);
  }
  return values;
}

DType KvDTypeFor(CacheChoice::KvDType choice, DType weight) {
  switch (choice) {
    case CacheChoice::KvDType::kF32:
      return DType::kF32;
    case CacheChoice::KvDType::kF16:
      return DType::kF16;
    case CacheChoice::KvDType::kBF16:
      return DType::kBF16;
    case CacheChoice::KvDType::kAuto:
      break;
  }
  return kernels::IsFloatType(weight) ? DType::kF32 : DType::kF16;
}

kernels::QuantizedRows Carver::TakeQuantized(uint64_t rows, uint64_t width) {
  kernels::QuantizedRows q8;
  q8.q = Take<int8_t>(rows * width);
  q8.scale = Take<float>(rows * (width / kernels::kQuantGroup));
  q8.sum = Take<int32_t>(rows * (width / kernels::kQuantGroup));
  return q8;
}

kernels::Activation MakeActivation(const Launch& launch,
                                   const kernels::Kernel<kernels::QuantizeRowsOp>& quantize,
                                   const float* x, int32_t width,
                                   const kernels::QuantizedRows& q8) {
  kernels::Activation activation;
  activation.x = x;
  if (quantize.run != nullptr) {
    activation.q8 = q8;
    quantize(*launch.context, {.x = x, .out = q8, .rows = launch.rows, .width = width});
  }
  return activation;
}

}  // namespace tessera::blockzoo
