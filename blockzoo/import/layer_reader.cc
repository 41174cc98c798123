#include "blockzoo/import/layer_reader.h"

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

constexpr Key kWindow = {"attention.sliding_window", "sliding_window"};
constexpr Key kUseWindow = {nullptr, "use_sliding_window"};
constexpr Key kLayerTypes = {nullptr, "layer_types"};
constexpr Key kFirstLayer = {nullptr, "max_window_layers"};
constexpr Key kPattern = {"attention.sliding_window_pattern", "sliding_window_pattern"};

// The window in tokens; 0 where there is none, or where it is switched off.
StatusOr<int64_t> WindowOf(SettingsReader& read) {
  TESSERA_ASSIGN_OR_RETURN(const int64_t used, read.IntegerOr(kUseWindow, 1, 0, 1));
  TESSERA_ASSIGN_OR_RETURN(const int64_t window, read.IntegerOr(kWindow, 0, 0, INT64_MAX));
  return used == 0 ? 0 : window;
}

Status NotOneALayer(const std::string& setting, size_t count, int64_t layers) {
  return InvalidSetting(setting,
                        absl::StrCat("it has ", count, " entries for ", layers, " layers"));
}

// Whether each layer has the window.
StatusOr<std::vector<bool>> WindowedLayers(int64_t period, SettingsReader& read, int64_t layers) {
  std::vector<bool> windowed(layers);
  if (const std::vector<std::string> types = read.Texts(kLayerTypes); !types.empty()) {
    if (types.size() != windowed.size()) {
      return NotOneALayer(read.Name(kLayerTypes), types.size(), layers);
    }
    for (int64_t i = 0; i < layers; ++i) {
      windowed[i] = types[i] == "sliding_attention";
      if (!windowed[i] && types[i] != "full_attention") {
        return UnsupportedSetting(absl::StrCat("a layer of type \"", types[i], "\""),
                                  read.Name(kLayerTypes));
      }
    }
    return windowed;
  }
  if (const StatusOr<std::vector<double>> pattern = read.Numbers(kPattern);
      pattern.ok() && !pattern->empty()) {
    if (pattern->size() != windowed.size()) {
      return NotOneALayer(read.Name(kPattern), pattern->size(), layers);
    }
    for (int64_t i = 0; i < layers; ++i) windowed[i] = (*pattern)[i] != 0;
    return windowed;
  }
  TESSERA_ASSIGN_OR_RETURN(const int64_t every, read.IntegerOr(kPattern, period, 0, kMaxLayers));
  TESSERA_ASSIGN_OR_RETURN(const int64_t first, read.IntegerOr(kFirstLayer, 0, 0, INT64_MAX));
  for (int64_t i = 0; i < layers; ++i) {
    windowed[i] = i >= first && (every == 0 || (i + 1) % every != 0);
  }
  return windowed;
}

}  // namespace

Status ReadWindows(int64_t period, SettingsReader& read, Decoder& decoder) {
  TESSERA_ASSIGN_OR_RETURN(const int64_t window, WindowOf(read));
  if (window == 0) return absl::OkStatus();
  TESSERA_ASSIGN_OR_RETURN(const std::vector<bool> windowed,
                           WindowedLayers(period, read, decoder.shape.layers));
  decoder.layers.resize(decoder.shape.layers);
  for (int64_t i = 0; i < decoder.shape.layers; ++i) {
    if (!windowed[i]) continue;
    decoder.layers[i].kind = LayerAttention::Kind::kLocal;
    if (window < decoder.shape.max_context) decoder.layers[i].window = window;
  }
  return absl::OkStatus();
}

Status HonourIdleWindow(SettingsReader& read, const DecoderShape& shape) {
  if (!read.Has(kWindow)) return absl::OkStatus();
  SettingsReader probe(read.checkpoint());
  TESSERA_ASSIGN_OR_RETURN(const int64_t window, WindowOf(probe));
  if (window == 0 || window >= shape.max_context) read.Honour(kWindow);
  return absl::OkStatus();
}

}  // namespace tessera::blockzoo
