// quant_method "awq": 4-bit codes in 32-bit words along the rows, transposed, nibbles interleaved.
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/import/plane_weights.h"

namespace tessera::blockzoo {
namespace {

Status CheckSettings(const Attributes& settings) {
  const std::string prefix = "quantization_config.";
  // Older files say w_bit.
  const std::string bits_name = prefix + (settings.Has(prefix + "bits") ? "bits" : "w_bit");
  TESSERA_ASSIGN_OR_RETURN(const int64_t bits, settings.Integer(bits_name, 1, 64));
  if (bits != 4) {
    return UnsupportedLayout(absl::StrCat("AWQ of ", bits, " bits"), bits_name,
                             "kernels have 4 bits");
  }
  const StatusOr<std::string> version = settings.Text(prefix + "version");
  if (version.ok() && absl::AsciiStrToLower(*version) != "gemm") {
    return UnsupportedLayout(absl::StrCat("the AWQ version \"", *version, "\""), prefix + "version",
                             "only gemm has its words in the order that this reader knows");
  }
  return absl::OkStatus();
}

Status Present(const Attributes& settings, FileTensors& file, ModelTensors& model) {
  TESSERA_RETURN_IF_ERROR(CheckSettings(settings));
  for (const std::string& prefix : PrefixesOf(file, ".qweight")) {
    const auto codes = TakeFrom(file, prefix + ".qweight");
    const auto scales = TakeFrom(file, prefix + ".scales");
    if (!scales.has_value() || codes->shape.size() != 2 || codes->shape[1] > INT32_MAX / 8) {
      return Error(absl::StatusCode::kInvalidArgument,
                   {.what = absl::StrCat("the quantized weight ", prefix, " is not valid"),
                    .why = "it must have qweight of two dimensions, and scales"});
    }
    const std::string name = prefix + ".weight";
    TESSERA_ASSIGN_OR_RETURN(model[name],
                             Int4Weight(name, {.out = codes->shape[1] * 8,
                                               .in = codes->shape[0],
                                               .codes = *codes,
                                               .arrangement = "awq",
                                               .scales = *scales,
                                               .scale_order = ScaleOrder::kGroups,
                                               .zeros = TakeFrom(file, prefix + ".qzeros"),
                                               .zero_words = ZeroWords::kAwq}));
  }
  return absl::OkStatus();
}

}  // namespace

void Register_awq(QuantizationRegistry& registry) {
  registry.Add({.name = "awq", .method = "awq", .present = Present});
}

}  // namespace tessera::blockzoo
