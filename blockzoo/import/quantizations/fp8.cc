// quant_method "fp8": e4m3 weights with one scale, or one for each 128 x 128 (DeepSeek, Qwen3).
#include "absl/strings/str_cat.h"
#include "blockzoo/import/plane_weights.h"

namespace tessera::blockzoo {
namespace {

constexpr const char* kGroup = "quantization_config.";

Status CheckSettings(const Attributes& settings) {
  const std::string block = absl::StrCat(kGroup, "weight_block_size");
  if (settings.Has(block)) {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<double> size, settings.Numbers(block));
    if (size != std::vector<double>{128, 128}) {
      return UnsupportedLayout("FP8 in these blocks", block,
                               "kernels have a scale for each 128 x 128, each row, or the whole");
    }
  }
  const std::string format = absl::StrCat(kGroup, "fmt");
  const StatusOr<std::string> text = settings.Text(format);
  if (text.ok() && *text != "e4m3" && *text != "float8_e4m3fn") {
    return UnsupportedLayout(absl::StrCat("FP8 of the kind \"", *text, "\""), format,
                             "weights are e4m3");
  }
  return absl::OkStatus();
}

Status Present(const Attributes& settings, FileTensors& file, ModelTensors& model) {
  TESSERA_RETURN_IF_ERROR(CheckSettings(settings));
  for (const char* suffix : {"_scale_inv", "_scale"}) {
    for (const std::string& name : PrefixesOf(file, suffix)) {
      const auto codes = file.find(name);
      if (codes == file.end() || codes->second.type != "F8_E4M3") continue;
      TESSERA_ASSIGN_OR_RETURN(model[name],
                               ByteWeight(name, codes->second, file.at(name + suffix)));
      file.erase(codes);
      file.erase(name + suffix);
    }
  }
  DropActivationScales(file);
  return absl::OkStatus();
}

}  // namespace

void Register_fp8(QuantizationRegistry& registry) {
  registry.Add({.name = "fp8", .method = "fp8", .present = Present});
}

}  // namespace tessera::blockzoo
