#include "blockzoo/rotary.h"

#include <algorithm>
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

// Settings, and what is filled in of them.
struct Making {
  const RotarySettings& settings;
  double length;  // tokens that sequences may have
  std::vector<double> frequencies;
  double scale = 1.0;

  [[nodiscard]] double original() const { return static_cast<double>(settings.original_context); }
  [[nodiscard]] double dim() const { return settings.dim; }

  void FillPlain(double base) {
    for (size_t i = 0; i < frequencies.size(); ++i) {
      frequencies[i] = std::pow(base, -2.0 * static_cast<double>(i) / settings.dim);
    }
  }
};

Status Plain(Making& /*making*/) { return absl::OkStatus(); }

Status Linear(Making& making) {
  for (double& frequency : making.frequencies) frequency /= making.settings.factor;
  return absl::OkStatus();
}

// The base that leaves the fastest pair alone and slows the slowest down by `factor`.
Status StretchBase(Making& making, double factor) {
  if (making.settings.dim <= 2) return OutOfRange("dim", making.settings.dim);
  making.FillPlain(making.settings.base * std::pow(factor, making.dim() / (making.dim() - 2)));
  return absl::OkStatus();
}

Status Ntk(Making& making) { return StretchBase(making, making.settings.factor); }

Status NeedOriginal(const Making& making) {
  return making.settings.original_context > 1 ? absl::OkStatus()
                                              : OutOfRange("original_context", making.original());
}

Status Dynamic(Making& making) {
  TESSERA_RETURN_IF_ERROR(NeedOriginal(making));
  const double factor = making.settings.factor;
  const double length = std::max(making.length, making.original());
  const double stretch = factor * length / making.original() - (factor - 1);
  if (!(stretch > 0)) return OutOfRange("factor", factor);
  return StretchBase(making, stretch);
}

Status Yarn(Making& making) {
  TESSERA_RETURN_IF_ERROR(NeedOriginal(making));
  const RotarySettings& settings = making.settings;
  if (!(settings.beta_slow > 0) || !std::isfinite(settings.beta_slow)) {
    return OutOfRange("beta_slow", settings.beta_slow);
  }
  if (!(settings.beta_fast >= settings.beta_slow) || !std::isfinite(settings.beta_fast)) {
    return OutOfRange("beta_fast", settings.beta_fast);
  }
  // The pair that turns so many times in the original context.
  const auto pair_of = [&](double turns) {
    return making.dim() * std::log(making.original() / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(settings.base));
  };
  double low = pair_of(settings.beta_fast);
  double high = pair_of(settings.beta_slow);
  if (settings.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, making.dim() - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < making.frequencies.size(); ++i) {
    const double slowed = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    double& frequency = making.frequencies[i];
    frequency = frequency / settings.factor * slowed + frequency * (1 - slowed);
  }
  const auto sharpness = [&](double m) {
    return settings.factor <= 1 ? 1.0 : 0.1 * m * std::log(settings.factor) + 1.0;
  };
  making.scale = settings.mscale > 0 && settings.mscale_all_dim > 0
                     ? sharpness(settings.mscale) / sharpness(settings.mscale_all_dim)
                     : sharpness(1.0);
  return absl::OkStatus();
}

Status DivideBy(Making& making, const char* field, const std::vector<double>& factors) {
  if (factors.size() != making.frequencies.size()) {
    return OutOfRange(absl::StrCat(field, " (count)").c_str(), static_cast<double>(factors.size()));
  }
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!(factors[i] > 0) || !std::isfinite(factors[i])) return OutOfRange(field, factors[i]);
    making.frequencies[i] /= factors[i];
  }
  return absl::OkStatus();
}

Status LongRope(Making& making) {
  TESSERA_RETURN_IF_ERROR(NeedOriginal(making));
  const RotarySettings& settings = making.settings;
  if (settings.factor > 1) {
    making.scale = std::sqrt(1 + std::log(settings.factor) / std::log(making.original()));
  }
  return making.length > making.original()
             ? DivideBy(making, "long_factor", settings.long_factor)
             : DivideBy(making, "short_factor", settings.short_factor);
}

Status Llama3(Making& making) {
  TESSERA_RETURN_IF_ERROR(NeedOriginal(making));
  const RotarySettings& settings = making.settings;
  if (!(settings.low_freq_factor > 0) || !std::isfinite(settings.low_freq_factor)) {
    return OutOfRange("low_freq_factor", settings.low_freq_factor);
  }
  if (!(settings.high_freq_factor > settings.low_freq_factor)) {
    return OutOfRange("high_freq_factor", settings.high_freq_factor);
  }
  for (double& frequency : making.frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    const double original = making.original();
    if (wavelength < original / settings.high_freq_factor) continue;
    if (wavelength > original / settings.low_freq_factor) {
      frequency /= settings.factor;
      continue;
    }
    const double smooth = (original / wavelength - settings.low_freq_factor) /
                          (settings.high_freq_factor - settings.low_freq_factor);
    frequency = (1 - smooth) * frequency / settings.factor + smooth * frequency;
  }
  return absl::OkStatus();
}

struct Scaling {
  const char* name;
  Status (*apply)(Making& making);
};
constexpr Scaling kScalings[] = {{"none", Plain},      {"linear", Linear}, {"ntk", Ntk},
                                 {"dynamic", Dynamic}, {"yarn", Yarn},     {"longrope", LongRope},
                                 {"llama3", Llama3}};

Status ApplyScaling(Making& making) {
  const std::string& wanted = making.settings.scaling;
  std::string known;
  for (const Scaling& scaling : kScalings) {
    if ((wanted.empty() ? "none" : wanted) == scaling.name) return scaling.apply(making);
    absl::StrAppend(&known, known.empty() ? "" : ", ", scaling.name);
  }
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat("rotary scaling \"", wanted, "\""),
                .why = absl::StrCat("the known ones are ", known)});
}

Status CheckRanges(const RotarySettings& settings) {
  if (settings.dim == 0 || settings.dim % 2 != 0 || settings.dim > 4096) {
    return OutOfRange("dim", settings.dim);
  }
  if (!(settings.base > 1.0) || !std::isfinite(settings.base)) {
    return OutOfRange("base", settings.base);
  }
  if (!(settings.factor > 0) || !std::isfinite(settings.factor)) {
    return OutOfRange("factor", settings.factor);
  }
  if (!(settings.attention_factor >= 0) || !std::isfinite(settings.attention_factor)) {
    return OutOfRange("attention_factor", settings.attention_factor);
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<RotaryTable> MakeRotaryTable(const RotarySettings& settings, uint64_t max_context) {
  TESSERA_RETURN_IF_ERROR(CheckRanges(settings));
  Making making{.settings = settings,
                .length = static_cast<double>(settings.length != 0 ? settings.length : max_context),
                .frequencies = std::vector<double>(settings.dim / 2)};
  making.FillPlain(settings.base);
  TESSERA_RETURN_IF_ERROR(ApplyScaling(making));
  if (!settings.frequency_factors.empty()) {
    TESSERA_RETURN_IF_ERROR(DivideBy(making, "frequency_factors", settings.frequency_factors));
  }
  if (settings.attention_factor > 0) making.scale = settings.attention_factor;
  return RotaryTable{
      .frequencies = std::vector<float>(making.frequencies.begin(), making.frequencies.end()),
      .scale = static_cast<float>(making.scale)};
}

}  // namespace tessera::blockzoo
