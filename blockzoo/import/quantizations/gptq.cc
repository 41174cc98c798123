// quant_method "gptq": 4-bit codes in 32-bit words along the columns, transposed.
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/import/plane_weights.h"

namespace tessera::blockzoo {
namespace {

StatusOr<ZeroWords> CheckSettings(const Attributes& settings) {
  constexpr const char* kBits = "quantization_config.bits";
  constexpr const char* kFormat = "quantization_config.checkpoint_format";
  TESSERA_ASSIGN_OR_RETURN(const int64_t bits, settings.Integer(kBits, 1, 64));
  if (bits != 4) {
    return UnsupportedLayout(absl::StrCat("GPTQ of ", bits, " bits"), kBits, "kernels have 4 bits");
  }
  const StatusOr<std::string> format = settings.Text(kFormat);
  if (!format.ok() || *format == "gptq") return ZeroWords::kGptq;
  if (*format == "gptq_v2") return ZeroWords::kGptqAsItIs;
  return UnsupportedLayout(absl::StrCat("the GPTQ format \"", *format, "\""), kFormat,
                           "known are gptq and gptq_v2");
}

// The columns of a group must be neighbours.
Status CheckOrder(const SafetensorsTensor& index, uint64_t in, uint64_t groups) {
  if (index.type != "I32" || index.shape != Shape{in} || groups == 0 || in % groups != 0) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("the tensor ", index.name, " is not valid"),
                  .why = absl::StrCat("it must be I32 [", in, "], a group for each column")});
  }
  for (uint64_t i = 0; i < in; ++i) {
    int32_t group;
    std::memcpy(&group, index.bytes.data() + i * sizeof(group), sizeof(group));
    if (group >= 0 && static_cast<uint64_t>(group) == i / (in / groups)) continue;
    return UnsupportedLayout(
        "GPTQ in activation order (desc_act)", absl::StrCat("tensor ", index.name),
        absl::StrCat("column ", i, " is of group ", group,
                     "; a group's columns must be neighbours to share a scale"));
  }
  return absl::OkStatus();
}

Status PresentOne(FileTensors& file, const std::string& prefix, ZeroWords zero_words,
                  ModelTensors& model) {
  const auto codes = TakeFrom(file, prefix + ".qweight");
  const auto scales = TakeFrom(file, prefix + ".scales");
  const auto zeros = TakeFrom(file, prefix + ".qzeros");
  const auto index = TakeFrom(file, prefix + ".g_idx");
  if (!scales.has_value() || scales->shape.size() != 2 || !zeros.has_value() ||
      codes->shape.size() != 2 || codes->shape[0] > INT32_MAX / 8) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("the quantized weight ", prefix, " is not valid"),
                  .why = "it must have qweight and scales of two dimensions, and qzeros"});
  }
  const uint64_t in = codes->shape[0] * 8;
  if (index.has_value()) TESSERA_RETURN_IF_ERROR(CheckOrder(*index, in, scales->shape[0]));
  const std::string name = prefix + ".weight";
  TESSERA_ASSIGN_OR_RETURN(model[name], Int4Weight(name, {.out = codes->shape[1],
                                                          .in = in,
                                                          .codes = *codes,
                                                          .arrangement = "gptq",
                                                          .scales = *scales,
                                                          .scale_order = ScaleOrder::kGroups,
                                                          .zeros = zeros,
                                                          .zero_words = zero_words}));
  return absl::OkStatus();
}

// A projection without a bias has one of zeros in these files.
void DropZeroBias(FileTensors& file, const std::string& prefix) {
  const auto bias = file.find(prefix + ".bias");
  if (bias == file.end()) return;
  for (const std::byte byte : bias->second.bytes) {
    if (byte != std::byte{0}) return;
  }
  file.erase(bias);
}

Status Present(const Attributes& settings, FileTensors& file, ModelTensors& model) {
  TESSERA_ASSIGN_OR_RETURN(const ZeroWords zero_words, CheckSettings(settings));
  for (const std::string& prefix : PrefixesOf(file, ".qweight")) {
    TESSERA_RETURN_IF_ERROR(PresentOne(file, prefix, zero_words, model));
    DropZeroBias(file, prefix);
  }
  return absl::OkStatus();
}

}  // namespace

void Register_gptq(QuantizationRegistry& registry) {
  registry.Add({.name = "gptq", .method = "gptq", .present = Present});
}

}  // namespace tessera::blockzoo
