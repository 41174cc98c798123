// SmolLM3: Llama's blocks, some layers without rotation.
#include "absl/strings/str_cat.h"
#include "blockzoo/import/layer_reader.h"

namespace tessera::blockzoo {
namespace {

constexpr Key kRotated = {"rope.pattern", "no_rope_layers"};
constexpr Key kInterval = {nullptr, "no_rope_layer_interval"};
constexpr Key kLayerTypes = {nullptr, "layer_types"};

constexpr DecoderKind kKind = {
    .architecture = "smollm3",
    .gguf_rope_style = "interleaved",
    .defaults = {.max_context = 32768, .rope_base = 2e6, .head = Decoder::Head::kTied}};

// A list of 1 (rotated) and 0, or every n-th layer is not rotated.
Status ReadRotation(SettingsReader& read, Decoder& decoder) {
  const int64_t layers = decoder.shape.layers;
  TESSERA_ASSIGN_OR_RETURN(const std::vector<double> rotated, read.Numbers(kRotated));
  TESSERA_ASSIGN_OR_RETURN(const int64_t interval, read.IntegerOr(kInterval, 4, 1, INT64_MAX));
  if (!rotated.empty() && static_cast<int64_t>(rotated.size()) < layers) {
    return InvalidSetting(read.Name(kRotated), absl::StrCat("it has ", rotated.size(),
                                                            " entries for ", layers, " layers"));
  }
  decoder.layers.resize(layers);
  for (int64_t i = 0; i < layers; ++i) {
    const bool rotates = rotated.empty() ? (i + 1) % interval != 0 : rotated[i] != 0;
    if (!rotates) decoder.layers[i].rotary = kNoRotary;
  }
  return absl::OkStatus();
}

StatusOr<ChainPlan> Cut(const Checkpoint& checkpoint) {
  TensorTaker taker(checkpoint);
  SettingsReader read(checkpoint);
  TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
  if (read.Has(kLayerTypes)) TESSERA_RETURN_IF_ERROR(ReadWindows(0, read, decoder));
  TESSERA_RETURN_IF_ERROR(ReadRotation(read, decoder));
  return CutDecoder(decoder, read, taker);
}

}  // namespace

void Register_smollm3(ArchitectureRegistry& registry) {
  registry.Add({.name = "smollm3", .aliases = {"smollm3", "SmolLM3ForCausalLM"}, .cut = Cut});
}

}  // namespace tessera::blockzoo
