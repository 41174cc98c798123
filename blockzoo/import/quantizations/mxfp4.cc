// quant_method "mxfp4" (gpt-oss): experts in 4 bits with a power of two for each 32, as two tensors
// NAME_blocks [experts, out, in / 32, 16] and NAME_scales [experts, out, in / 32].
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "blockzoo/import/plane_weights.h"

namespace tessera::blockzoo {
namespace {

constexpr uint64_t kBlock = 32, kCodes = 16, kBlockBytes = kCodes + 1;
constexpr std::byte kNotANumber{0xff};

Status Bad(const std::string& name, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("the tensor ", name, " is not valid"),
                .why = std::string(why),
                .fix = "fetch the file again, or the checkpoint from its author"});
}

// A byte holds neighbours, low nibble first; in the canonical form, elements i and i + 16.
void Repack(const std::byte* codes, std::byte scale, std::byte* block) {
  const auto element = [codes](uint64_t i) {
    return i % 2 == 0 ? codes[i / 2] & std::byte{15} : codes[i / 2] >> 4;
  };
  block[0] = scale;
  for (uint64_t i = 0; i < kCodes; ++i) block[1 + i] = element(i) | element(i + kCodes) << 4;
}

StatusOr<CheckpointTensor> Weight(const std::string& name, const SafetensorsTensor& blocks,
                                  const SafetensorsTensor& scales) {
  if (blocks.type != "U8" || blocks.shape.size() < 3 || blocks.shape.back() != kCodes) {
    return Bad(blocks.name, absl::StrCat("it must be U8 […, ", kCodes, "], not ", blocks.type, " ",
                                         ShapeText(blocks.shape)));
  }
  const Shape groups(blocks.shape.begin(), blocks.shape.end() - 1);
  if (scales.type != "U8" || scales.shape != groups) {
    return Bad(scales.name, absl::StrCat("it must be U8 ", ShapeText(groups), ", not ", scales.type,
                                         " ", ShapeText(scales.shape)));
  }
  const auto bad = std::find(scales.bytes.begin(), scales.bytes.end(), kNotANumber);
  if (bad != scales.bytes.end()) {
    return Bad(scales.name, absl::StrCat("scale ", bad - scales.bytes.begin(), " is not a number"));
  }
  CheckpointTensor weight{.name = name, .dtype = kernels::DType::kMXFP4, .shape = groups};
  weight.shape.back() *= kBlock;
  weight.make = [codes = blocks.bytes, scales = scales.bytes](std::span<std::byte> canonical) {
    for (uint64_t b = 0; b < scales.size(); ++b) {
      Repack(codes.data() + b * kCodes, scales[b], canonical.data() + b * kBlockBytes);
    }
    return absl::OkStatus();
  };
  return weight;
}

Status Present(const Attributes& /*settings*/, FileTensors& file, ModelTensors& model) {
  for (const std::string& name : PrefixesOf(file, "_blocks")) {
    const auto scales = file.find(name + "_scales");
    if (scales == file.end()) return Bad(name + "_blocks", "its scales are missing");
    TESSERA_ASSIGN_OR_RETURN(model[name], Weight(name, file.at(name + "_blocks"), scales->second));
    file.erase(name + "_blocks");
    file.erase(name + "_scales");
  }
  return absl::OkStatus();
}

}  // namespace

void Register_mxfp4(QuantizationRegistry& registry) {
  registry.Add({.name = "mxfp4", .method = "mxfp4", .present = Present});
}

}  // namespace tessera::blockzoo
