#include "blockzoo/import/plane_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/import/code_arrangement.h"
#include "kernels/weight_planes.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;
using kernels::WeightPlanes;

Status BadTensor(const std::string& name, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("the tensor ", name, " is not valid"),
                .why = std::string(why),
                .fix = "fetch the file again, or the checkpoint from its author"});
}

Status Unsupported(absl::string_view what, const std::string& name, absl::string_view why) {
  return UnsupportedLayout(what, absl::StrCat("tensor ", name), why);
}

template <typename T>
T At(std::span<const std::byte> bytes, uint64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

uint64_t ElementsOf(const Shape& shape) {
  uint64_t elements = 1;
  for (const uint64_t dimension : shape) elements *= dimension;
  return elements;
}

bool IsFloatTensor(const SafetensorsTensor& tensor) {
  return tensor.type == "F32" || tensor.type == "F16" || tensor.type == "BF16";
}

// `tensor` holds floats.
float FloatAt(const SafetensorsTensor& tensor, uint64_t index) {
  if (tensor.type == "F32") return At<float>(tensor.bytes, index);
  const auto bits = At<uint16_t>(tensor.bytes, index);
  return tensor.type == "F16" ? kernels::F16ToF32(bits) : kernels::BF16ToF32(bits);
}

Status CheckScales(const SafetensorsTensor& scales) {
  if (!IsFloatTensor(scales)) {
    return BadTensor(scales.name, absl::StrCat("scales are F32, F16 or BF16, not ", scales.type));
  }
  for (uint64_t i = 0; i < ElementsOf(scales.shape); ++i) {
    if (std::isfinite(FloatAt(scales, i))) continue;
    return BadTensor(scales.name, absl::StrCat("scale ", i, " is not a finite number"));
  }
  return absl::OkStatus();
}

Status CheckE4m3(const SafetensorsTensor& codes) {
  for (uint64_t i = 0; i < codes.bytes.size(); ++i) {
    if ((codes.bytes[i] & std::byte{0x7f}) != std::byte{0x7f}) continue;
    return BadTensor(codes.name, absl::StrCat("element ", i, " is not a number"));
  }
  return absl::OkStatus();
}

// One for all, or one a row, as float32 for each of `out` rows.
void WriteRowScales(const SafetensorsTensor& scales, uint64_t out, std::byte* to) {
  const bool one = ElementsOf(scales.shape) == 1;
  for (uint64_t row = 0; row < out; ++row) {
    const float scale = FloatAt(scales, one ? 0 : row);
    std::memcpy(to + row * sizeof(scale), &scale, sizeof(scale));
  }
}

bool AreRowScales(const Shape& shape, uint64_t out) {
  return ElementsOf(shape) == 1 || shape == Shape{out} || shape == Shape{out, 1};
}

// Where an int4 weight's parts are, with what its kernel type asks for.
struct Int4Plan {
  Int4Parts parts;
  DType dtype = DType::kI4G128;
  uint64_t file_groups = 0;  // columns of scales
  uint64_t groups = 0;       // of the kernel's type
};

// 0..16: 16 where a stored 15 wraps.
uint32_t ZeroAt(const Int4Plan& plan, uint64_t row, uint64_t group) {
  if (!plan.parts.zeros.has_value()) return 8;
  const std::span<const std::byte> words = plan.parts.zeros->bytes;
  const auto nibble = [&words](uint64_t word, uint64_t place) {
    return At<uint32_t>(words, word) >> (4 * place) & 15;
  };
  const uint64_t by_groups = group * (plan.parts.out / 8) + row / 8;
  switch (plan.parts.zero_words) {
    case ZeroWords::kRows:
      return nibble(row / 8 * plan.file_groups + group, row % 8);
    case ZeroWords::kAwq:
      return nibble(by_groups, AwqNibble(row));
    case ZeroWords::kGptq:
      return nibble(by_groups, row % 8) + 1;
    case ZeroWords::kGptqAsItIs:
      return nibble(by_groups, row % 8);
  }
  return 8;
}

Status CheckInt4Shapes(const Int4Plan& plan) {
  const Int4Parts& parts = plan.parts;
  const auto expect = [](const SafetensorsTensor& tensor, const Shape& shape) {
    return tensor.shape == shape
               ? absl::OkStatus()
               : BadTensor(tensor.name, absl::StrCat("its shape is ", ShapeText(tensor.shape),
                                                     ", expected ", ShapeText(shape)));
  };
  const uint64_t groups = plan.file_groups;
  if (parts.codes.type != "I32" || parts.codes.bytes.size() != parts.out * (parts.in / 2)) {
    return BadTensor(parts.codes.name, absl::StrCat("it must be I32 with ", parts.out * parts.in,
                                                    " codes of 4 bits"));
  }
  TESSERA_RETURN_IF_ERROR(expect(parts.scales, parts.scale_order == ScaleOrder::kRows
                                                   ? Shape{parts.out, groups}
                                                   : Shape{groups, parts.out}));
  if (!parts.arrangement.empty() && parts.out % 8 != 0) {
    return BadTensor(parts.codes.name, absl::StrCat(parts.out, " rows do not fill whole words"));
  }
  if (!parts.zeros.has_value()) return absl::OkStatus();
  if (parts.zeros->type != "I32") return BadTensor(parts.zeros->name, "it must be I32");
  return expect(*parts.zeros, parts.zero_words == ZeroWords::kRows
                                  ? Shape{(parts.out + 7) / 8, groups}
                                  : Shape{groups, parts.out / 8});
}

// The kernel's type, from the file's group.
Status ChooseGroup(Int4Plan& plan) {
  const Shape& shape = plan.parts.scales.shape;
  plan.file_groups = shape.size() != 2                             ? 0
                     : plan.parts.scale_order == ScaleOrder::kRows ? shape[1]
                                                                   : shape[0];
  if (plan.file_groups == 0 || plan.parts.in % plan.file_groups != 0) {
    return BadTensor(plan.parts.scales.name,
                     absl::StrCat("its shape ", ShapeText(shape), " does not divide ",
                                  plan.parts.in, " columns into groups"));
  }
  const uint64_t group = plan.parts.in / plan.file_groups;
  const uint64_t kernel_group = group % 128 == 0 ? 128 : 64;
  if (group % kernel_group != 0) {
    return Unsupported(absl::StrCat("int4 in groups of ", group), plan.parts.codes.name,
                       "kernels have groups of 64 and 128 columns, and multiples of them");
  }
  plan.groups = plan.parts.in / kernel_group;
  plan.dtype = kernel_group == 128 ? DType::kI4G128 : DType::kI4G64;
  return absl::OkStatus();
}

// Whether the type needs zero points; each is 0 to 15.
Status ChooseZeros(Int4Plan& plan) {
  bool all_eight = true;
  for (uint64_t row = 0; row < plan.parts.out; ++row) {
    for (uint64_t group = 0; group < plan.file_groups; ++group) {
      const uint32_t zero = ZeroAt(plan, row, group);
      if (zero > 15) {
        return Unsupported(
            "the zero point 16", plan.parts.zeros->name,
            absl::StrCat("row ", row, ", group ", group, " stores 15, which readers ",
                         "of this format take for 16, 0 or a carry"));
      }
      all_eight = all_eight && zero == 8;
    }
  }
  if (!all_eight) {
    plan.dtype = plan.dtype == DType::kI4G128 ? DType::kI4G128Zero : DType::kI4G64Zero;
  }
  return absl::OkStatus();
}

// Whether all codes of a kernel's group are `zero`.
bool MeansZero(const std::byte* codes, uint64_t bytes, uint32_t zero) {
  const auto twice = static_cast<std::byte>(zero * 17);
  return std::all_of(codes, codes + bytes, [twice](std::byte code) { return code == twice; });
}

Status MakeInt4(const Int4Plan& plan, std::span<std::byte> canonical) {
  const Int4Parts& parts = plan.parts;
  const WeightPlanes planes = kernels::PlanesOf(plan.dtype, parts.out, parts.in);
  TESSERA_RETURN_IF_ERROR(CanonicalCodes(parts.arrangement, parts.out, parts.in, parts.codes.bytes,
                                         canonical.first(planes.codes_bytes)));
  const uint64_t repeat = plan.groups / plan.file_groups;
  const uint64_t group_bytes = parts.in / plan.groups / 2;
  for (uint64_t row = 0; row < parts.out; ++row) {
    for (uint64_t group = 0; group < plan.groups; ++group) {
      const uint64_t from = group / repeat;
      const uint64_t at = row * plan.groups + group;
      const uint32_t zero = ZeroAt(plan, row, from);
      const uint64_t index = parts.scale_order == ScaleOrder::kRows ? row * plan.file_groups + from
                                                                    : from * parts.out + row;
      const float scale = FloatAt(parts.scales, index);
      const uint16_t half = parts.scales.type == "F16" ? At<uint16_t>(parts.scales.bytes, index)
                                                       : kernels::F32ToF16(scale);
      if (kernels::F16ToF32(half) != scale &&
          !MeansZero(canonical.data() + at * group_bytes, group_bytes, zero)) {
        return Unsupported("a scale beyond float16", parts.scales.name,
                           absl::StrCat("scale ", index, " is ", scale,
                                        ", which would be stored as ", kernels::F16ToF32(half)));
      }
      std::memcpy(canonical.data() + planes.scales_offset + at * sizeof(half), &half, sizeof(half));
      if (planes.zeros_bytes != 0) {
        canonical[planes.zeros_offset + at] = static_cast<std::byte>(zero);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

Status UnsupportedLayout(absl::string_view what, absl::string_view where, absl::string_view why) {
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat(what, " is not supported"),
                .where = std::string(where),
                .why = std::string(why),
                .fix = "import the model's unquantized form and use `tessera zoo quantize`"});
}

std::optional<SafetensorsTensor> TakeFrom(FileTensors& file, const std::string& name) {
  auto node = file.extract(name);
  if (node.empty()) return std::nullopt;
  return std::move(node.mapped());
}

std::vector<std::string> PrefixesOf(const FileTensors& file, absl::string_view suffix) {
  std::vector<std::string> prefixes;
  for (const auto& [name, tensor] : file) {
    if (absl::EndsWith(name, suffix))
      prefixes.push_back(name.substr(0, name.size() - suffix.size()));
  }
  return prefixes;
}

void DropActivationScales(FileTensors& file) {
  std::erase_if(file, [](const auto& entry) {
    for (const absl::string_view suffix :
         {".input_scale", ".input_zero_point", ".input_global_scale", ".activation_scale",
          ".output_scale", ".q_scale", ".k_scale", ".v_scale", ".kv_scale"}) {
      if (absl::EndsWith(entry.first, suffix)) return true;
    }
    return false;
  });
}

StatusOr<CheckpointTensor> ByteWeight(const std::string& name, const SafetensorsTensor& codes,
                                      const SafetensorsTensor& scales) {
  const bool e4m3 = codes.type == "F8_E4M3";
  if (!e4m3 && codes.type != "I8") {
    return Unsupported(absl::StrCat("a weight of ", codes.type, " with scales"), codes.name,
                       "codes are F8_E4M3 or I8");
  }
  if (codes.shape.size() != 2) {
    return BadTensor(codes.name, absl::StrCat("its shape is ", ShapeText(codes.shape),
                                              "; a weight has rows and columns"));
  }
  const uint64_t out = codes.shape[0], in = codes.shape[1];
  CheckpointTensor weight{.name = name, .shape = codes.shape};
  if (AreRowScales(scales.shape, out)) {
    weight.dtype = e4m3 ? DType::kF8Channel : DType::kI8Channel;
  } else if (e4m3 && scales.shape == Shape{(out + 127) / 128, (in + 127) / 128}) {
    weight.dtype = DType::kF8Block128;
  } else {
    return Unsupported(absl::StrCat("scales of shape ", ShapeText(scales.shape)), scales.name,
                       absl::StrCat("the weight is ", ShapeText(codes.shape),
                                    "; there may be one scale, one a row, or for F8_E4M3 one for "
                                    "each 128 x 128"));
  }
  TESSERA_RETURN_IF_ERROR(TensorBytes(weight.dtype, weight.shape).status());
  TESSERA_RETURN_IF_ERROR(CheckScales(scales));
  const WeightPlanes planes = kernels::PlanesOf(weight.dtype, out, in);
  weight.origins.push_back({codes.bytes});
  if (scales.type == "F32" && scales.bytes.size() == planes.scales_bytes) {
    weight.origins.push_back({scales.bytes, planes.scales_offset});
  }
  weight.make = [codes, scales, planes, e4m3](std::span<std::byte> canonical) {
    if (e4m3) TESSERA_RETURN_IF_ERROR(CheckE4m3(codes));
    std::copy(codes.bytes.begin(), codes.bytes.end(), canonical.begin());
    // A scale for each 128 x 128 is copied as the file orders it, like one for each row.
    WriteRowScales(scales, planes.scales_bytes / sizeof(float),
                   canonical.data() + planes.scales_offset);
    return absl::OkStatus();
  };
  return weight;
}

StatusOr<CheckpointTensor> Int4Weight(const std::string& name, Int4Parts parts) {
  Int4Plan plan{.parts = std::move(parts)};
  TESSERA_RETURN_IF_ERROR(ChooseGroup(plan));
  TESSERA_RETURN_IF_ERROR(TensorBytes(plan.dtype, {plan.parts.out, plan.parts.in}).status());
  TESSERA_RETURN_IF_ERROR(CheckInt4Shapes(plan));
  TESSERA_RETURN_IF_ERROR(CheckScales(plan.parts.scales));
  TESSERA_RETURN_IF_ERROR(ChooseZeros(plan));
  CheckpointTensor weight{
      .name = name, .dtype = plan.dtype, .shape = {plan.parts.out, plan.parts.in}};
  weight.origins.push_back({plan.parts.codes.bytes, 0, plan.parts.arrangement});
  weight.make = [plan = std::move(plan)](std::span<std::byte> canonical) {
    return MakeInt4(plan, canonical);
  };
  return weight;
}

StatusOr<CheckpointTensor> PackedByteWeight(const std::string& name, uint64_t out, uint64_t in,
                                            const SafetensorsTensor& codes,
                                            const SafetensorsTensor& scales) {
  if (in % 4 != 0 || codes.type != "I32" || codes.shape != Shape{out, in / 4}) {
    return BadTensor(codes.name,
                     absl::StrCat("it must be I32 with ", in, " bytes in each of ", out, " rows"));
  }
  if (!AreRowScales(scales.shape, out)) {
    return Unsupported(absl::StrCat("int8 with scales of shape ", ShapeText(scales.shape)),
                       scales.name, "kernels have one scale a row");
  }
  TESSERA_RETURN_IF_ERROR(TensorBytes(DType::kI8Channel, {out, in}).status());
  TESSERA_RETURN_IF_ERROR(CheckScales(scales));
  CheckpointTensor weight{.name = name, .dtype = DType::kI8Channel, .shape = {out, in}};
  weight.origins.push_back({codes.bytes, 0, "biased"});
  weight.make = [codes, scales, out, in](std::span<std::byte> canonical) {
    const WeightPlanes planes = kernels::PlanesOf(DType::kI8Channel, out, in);
    TESSERA_RETURN_IF_ERROR(
        CanonicalCodes("biased", out, in, codes.bytes, canonical.first(planes.codes_bytes)));
    WriteRowScales(scales, out, canonical.data() + planes.scales_offset);
    return absl::OkStatus();
  };
  return weight;
}

}  // namespace tessera::blockzoo
