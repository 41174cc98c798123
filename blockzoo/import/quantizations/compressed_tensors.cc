// quant_method "compressed-tensors": FP8 and INT8 weights with scales, INT4 and INT8 packed into
// 32-bit words.
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "blockzoo/import/plane_weights.h"

namespace tessera::blockzoo {
namespace {

constexpr absl::string_view kGroup = "quantization_config.";

// Refuses what would change the meaning of the tensors that `Present` knows. Shapes say the rest.
Status CheckSettings(const Attributes& settings) {
  for (const auto& [name, value] : settings.values()) {
    const absl::string_view field = absl::StripPrefix(name, kGroup);
    if (field.size() == name.size()) continue;
    const auto* const text = std::get_if<std::string>(&value);
    if (absl::StartsWith(field, "transform_config.config_groups.")) {
      return UnsupportedLayout("a transform of the weights", name,
                               "kernels multiply untransformed ones");
    }
    if (text == nullptr) continue;
    if (field == "sparsity_config.format" && *text != "dense") {
      return UnsupportedLayout(absl::StrCat("the sparse format \"", *text, "\""), name,
                               "weights are stored whole");
    }
    const bool format = field == "format" || (absl::StartsWith(field, "config_groups.") &&
                                              absl::EndsWith(field, ".format"));
    if (!format) continue;
    bool known = false;
    for (const absl::string_view name_of_format :
         {"dense", "naive-quantized", "float-quantized", "int-quantized", "pack-quantized",
          "mixed-precision"}) {
      known = known || *text == name_of_format;
    }
    if (!known) {
      return UnsupportedLayout(absl::StrCat("the compressed-tensors format \"", *text, "\""), name,
                               "known are naive-quantized, float-quantized, int-quantized and "
                               "pack-quantized");
    }
  }
  return absl::OkStatus();
}

// Weights of another zero point than 0 have none among kernels.
Status DropZeroPoints(FileTensors& file, const std::string& prefix) {
  const auto zeros = TakeFrom(file, prefix + "_zero_point");
  if (!zeros.has_value()) return absl::OkStatus();
  for (const std::byte byte : zeros->bytes) {
    if (byte != std::byte{0}) {
      return UnsupportedLayout("an 8-bit weight with zero points",
                               absl::StrCat("tensor ", zeros->name),
                               "kernels have 8-bit weights that are symmetric");
    }
  }
  return absl::OkStatus();
}

Status CheckOrder(FileTensors& file, const std::string& prefix, uint64_t in, uint64_t groups) {
  const auto index = TakeFrom(file, prefix + "_g_idx");
  if (!index.has_value()) return absl::OkStatus();
  if (index->type == "I32" && index->shape == Shape{in} && groups != 0 && in % groups == 0) {
    bool in_order = true;
    for (uint64_t i = 0; i < in; ++i) {
      int32_t group;
      std::memcpy(&group, index->bytes.data() + i * sizeof(group), sizeof(group));
      // -1 everywhere: the author's tool kept no order.
      in_order = in_order && (group == -1 || static_cast<uint64_t>(group) == i / (in / groups));
    }
    if (in_order) return absl::OkStatus();
  }
  return UnsupportedLayout("a weight whose columns are grouped by activation order",
                           absl::StrCat("tensor ", index->name),
                           "a group's columns must be neighbours to share a scale");
}

StatusOr<Shape> PackedShape(FileTensors& file, const std::string& prefix) {
  const auto shape = TakeFrom(file, prefix + "_shape");
  Shape sizes(2);
  if (!shape.has_value() || shape->shape != Shape{2} ||
      (shape->type != "I64" && shape->type != "I32")) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("the tensor ", prefix, "_shape is missing or not valid"),
                  .why = "a packed weight says its rows and columns there, as I64 or I32"});
  }
  const size_t element = shape->bytes.size() / 2;
  for (size_t i = 0; i < 2; ++i) {
    std::memcpy(&sizes[i], shape->bytes.data() + i * element, element);
  }
  for (const uint64_t size : sizes) {
    if (size >= 1 && size <= INT32_MAX) continue;
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("the tensor ", prefix, "_shape is not valid"),
                  .why = absl::StrCat("dimension ", size, ", allowed 1 to 2^31 - 1")});
  }
  return sizes;
}

Status PresentPacked(FileTensors& file, const std::string& prefix, ModelTensors& model) {
  const auto codes = TakeFrom(file, prefix + "_packed");
  const auto scales = TakeFrom(file, prefix + "_scale");
  if (!scales.has_value()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("the tensor ", prefix, "_scale is missing"),
                  .why = absl::StrCat(prefix, "_packed needs it")});
  }
  TESSERA_ASSIGN_OR_RETURN(const Shape shape, PackedShape(file, prefix));
  const uint64_t out = shape[0], in = shape[1];
  TESSERA_RETURN_IF_ERROR(
      CheckOrder(file, prefix, in, scales->shape.size() == 2 ? scales->shape[1] : 1));
  if (codes->bytes.size() == out * in) {
    TESSERA_RETURN_IF_ERROR(DropZeroPoints(file, prefix));
    TESSERA_ASSIGN_OR_RETURN(model[prefix], PackedByteWeight(prefix, out, in, *codes, *scales));
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(model[prefix],
                           Int4Weight(prefix, {.out = out,
                                               .in = in,
                                               .codes = *codes,
                                               .scales = *scales,
                                               .zeros = TakeFrom(file, prefix + "_zero_point")}));
  return absl::OkStatus();
}

Status Present(const Attributes& settings, FileTensors& file, ModelTensors& model) {
  TESSERA_RETURN_IF_ERROR(CheckSettings(settings));
  for (const std::string& prefix : PrefixesOf(file, "_packed")) {
    TESSERA_RETURN_IF_ERROR(PresentPacked(file, prefix, model));
  }
  for (const std::string& name : PrefixesOf(file, "_scale")) {
    const auto codes = file.find(name);
    if (codes == file.end() || (codes->second.type != "F8_E4M3" && codes->second.type != "I8")) {
      continue;
    }
    TESSERA_RETURN_IF_ERROR(DropZeroPoints(file, name));
    TESSERA_ASSIGN_OR_RETURN(model[name],
                             ByteWeight(name, codes->second, file.at(name + "_scale")));
    file.erase(name);
    file.erase(name + "_scale");
  }
  DropActivationScales(file);
  return absl::OkStatus();
}

}  // namespace

void Register_compressed_tensors(QuantizationRegistry& registry) {
  registry.Add({.name = "compressed_tensors", .method = "compressed-tensors", .present = Present});
}

}  // namespace tessera::blockzoo
