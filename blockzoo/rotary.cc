#include "blockzoo/rotary.h"

#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

Status OutOfRange(const char* field, double value) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("rotary setting ", field, " is ", value),
                .why = "it is out of range",
                .fix = "import the checkpoint again"});
}

double Llama3Scale(const RotarySettings& settings, double frequency) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double original = static_cast<double>(settings.original_context);
  if (wavelength < original / settings.high_freq_factor) return frequency;
  if (wavelength > original / settings.low_freq_factor) return frequency / settings.factor;
  const double smooth = (original / wavelength - settings.low_freq_factor) /
                        (settings.high_freq_factor - settings.low_freq_factor);
  return (1 - smooth) * frequency / settings.factor + smooth * frequency;
}

}  // namespace

StatusOr<std::vector<float>> RotaryFrequencies(const RotarySettings& settings) {
  if (settings.dim == 0 || settings.dim % 2 != 0 || settings.dim > 4096) {
    return OutOfRange("dim", settings.dim);
  }
  if (!(settings.base > 1.0) || !std::isfinite(settings.base)) {
    return OutOfRange("base", settings.base);
  }
  if (!(settings.factor > 0) || !std::isfinite(settings.factor)) {
    return OutOfRange("factor", settings.factor);
  }
  const bool llama3 = settings.scaling == "llama3";
  if (llama3 &&
      (settings.original_context == 0 || !(settings.high_freq_factor > settings.low_freq_factor) ||
       !(settings.low_freq_factor > 0))) {
    return OutOfRange("low_freq_factor", settings.low_freq_factor);
  }
  if (!settings.scaling.empty() && settings.scaling != "linear" && !llama3) {
    return Error(absl::StatusCode::kUnimplemented,
                 {.what = absl::StrCat("rotary scaling \"", settings.scaling, "\""),
                  .why = "the known ones are linear and llama3"});
  }
  const size_t pairs = settings.dim / 2;
  if (!settings.frequency_factors.empty() && settings.frequency_factors.size() != pairs) {
    return OutOfRange("frequency_factors (count)",
                      static_cast<double>(settings.frequency_factors.size()));
  }
  std::vector<float> frequencies(pairs);
  for (size_t i = 0; i < pairs; ++i) {
    double frequency = std::pow(settings.base, -2.0 * static_cast<double>(i) / settings.dim);
    if (llama3) frequency = Llama3Scale(settings, frequency);
    if (settings.scaling == "linear") frequency /= settings.factor;
    if (!settings.frequency_factors.empty()) {
      if (!(settings.frequency_factors[i] > 0)) {
        return OutOfRange("frequency_factors", settings.frequency_factors[i]);
      }
      frequency /= settings.frequency_factors[i];
    }
    frequencies[i] = static_cast<float>(frequency);
  }
  return frequencies;
}

void RotaryAngles(std::span<const float> frequencies, uint32_t position, float* cosine,
                  float* sine) {
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies[i];
    cosine[i] = std::cos(angle);
    sine[i] = std::sin(angle);
  }
}

}  // namespace tessera::blockzoo
