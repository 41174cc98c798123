#include "blockzoo/import/rotary_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {
namespace {

constexpr double kMaxFactor = 1e6;
constexpr double kMaxBase = 1e12;

// GGUF's tables of factors for each pair of a head.
StatusOr<std::vector<double>> TakeFactors(const char* name, uint32_t dim, TensorTaker& taker) {
  std::vector<double> factors;
  if (!taker.Has(name)) return factors;
  TESSERA_ASSIGN_OR_RETURN(const CheckpointTensor tensor, taker.Take(name, {dim / 2}));
  if (tensor.dtype != kernels::DType::kF32) return InvalidSetting(name, "it must be F32");
  for (size_t i = 0; i < dim / 2; ++i) {
    float factor;
    std::memcpy(&factor, tensor.bytes.data() + i * sizeof(factor), sizeof(factor));
    if (!std::isfinite(factor) || factor <= 0) {
      return InvalidSetting(name, "a factor is not positive");
    }
    factors.push_back(factor);
  }
  return factors;
}

// A linear scaling by 1 is none.
void SetLinear(double factor, RotarySettings& rotary) {
  rotary.factor = factor;
  if (factor != 1.0) rotary.scaling = "linear";
}

class GgufRotary {
 public:
  GgufRotary(const RotaryQuery& query, SettingsReader& read, TensorTaker& taker)
      : query_(query), read_(read), taker_(taker) {}

  StatusOr<RotarySettings> Read() {
    TESSERA_ASSIGN_OR_RETURN(
        const int64_t dim,
        read_.IntegerOr({.gguf = "rope.dimension_count"},
                        static_cast<int64_t>(query_.partial * static_cast<double>(query_.head_dim)),
                        2, kMaxHeadDim));
    rotary_.dim = static_cast<uint32_t>(dim);
    TESSERA_ASSIGN_OR_RETURN(rotary_.base,
                             read_.NumberOr(query_.base_key, query_.base, 1.0, kMaxBase));
    if (query_.scaling == RotaryQuery::Scaling::kNone) return rotary_;
    TESSERA_ASSIGN_OR_RETURN(const std::string scaling,
                             read_.TextOr({.gguf = "rope.scaling.type"}, "none"));
    if (taker_.Has(kLongFactors) && (scaling == "none" || scaling == "longrope")) {
      TESSERA_RETURN_IF_ERROR(ReadLongRope());
    } else if (scaling == "linear") {
      TESSERA_ASSIGN_OR_RETURN(const double factor, Factor());
      SetLinear(factor, rotary_);
    } else if (scaling == "none") {
      TESSERA_ASSIGN_OR_RETURN(const double factor, read_.NumberOr({.gguf = "rope.scale_linear"},
                                                                   1.0, 1e-3, kMaxFactor));
      SetLinear(factor, rotary_);
    } else if (scaling == "yarn") {
      TESSERA_RETURN_IF_ERROR(ReadYarn());
    } else {
      return UnsupportedSetting(absl::StrCat("the rotary scaling \"", scaling, "\""),
                                "rope.scaling.type");
    }
    TESSERA_ASSIGN_OR_RETURN(rotary_.frequency_factors,
                             TakeFactors("rope_freqs.weight", rotary_.dim, taker_));
    return std::move(rotary_);
  }

 private:
  static constexpr const char* kLongFactors = "rope_factors_long.weight";
  static constexpr const char* kShortFactors = "rope_factors_short.weight";

  StatusOr<double> Factor() {
    return read_.Number({.gguf = "rope.scaling.factor"}, 1e-3, kMaxFactor);
  }

  Status ReadOriginalContext() {
    TESSERA_ASSIGN_OR_RETURN(const int64_t original,
                             read_.IntegerOr({.gguf = "rope.scaling.original_context_length"},
                                             query_.max_context, 1, kMaxContext));
    rotary_.original_context = static_cast<uint64_t>(original);
    return absl::OkStatus();
  }

  Status ReadLongRope() {
    rotary_.scaling = "longrope";
    TESSERA_RETURN_IF_ERROR(ReadOriginalContext());
    rotary_.factor =
        static_cast<double>(query_.max_context) / static_cast<double>(rotary_.original_context);
    TESSERA_ASSIGN_OR_RETURN(
        rotary_.attention_factor,
        read_.NumberOr({.gguf = "rope.scaling.attn_factor"}, 0.0, 1e-3, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(rotary_.long_factor, TakeFactors(kLongFactors, rotary_.dim, taker_));
    TESSERA_ASSIGN_OR_RETURN(rotary_.short_factor, TakeFactors(kShortFactors, rotary_.dim, taker_));
    return absl::OkStatus();
  }

  // The factor on cosine and sine is the one that the settings give for YaRN, else YaRN's own times
  // their general one; with a logarithmic multiplier m, YaRN's own divided by that of m.
  Status ReadYarn() {
    rotary_.scaling = "yarn";
    TESSERA_ASSIGN_OR_RETURN(rotary_.factor, Factor());
    TESSERA_RETURN_IF_ERROR(ReadOriginalContext());
    TESSERA_ASSIGN_OR_RETURN(
        rotary_.beta_fast,
        read_.NumberOr({.gguf = "rope.scaling.yarn_beta_fast"}, 32.0, 1e-3, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(
        rotary_.beta_slow,
        read_.NumberOr({.gguf = "rope.scaling.yarn_beta_slow"}, 1.0, 1e-3, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(
        const double multiplier,
        read_.NumberOr({.gguf = "rope.scaling.yarn_log_multiplier"}, 0.0, 0.0, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(
        const double attention,
        read_.NumberOr({.gguf = "rope.scaling.attn_factor"}, 1.0, 1e-3, kMaxFactor));
    const double own = 1.0 + 0.1 * std::log(std::max(1.0, rotary_.factor));
    TESSERA_ASSIGN_OR_RETURN(
        rotary_.attention_factor,
        read_.NumberOr({.gguf = "rope.scaling.yarn_attn_factor"},
                       attention == 1.0 ? 0.0 : attention * own, 1e-3, kMaxFactor));
    if (multiplier != 0) {
      rotary_.mscale = 1.0;
      rotary_.mscale_all_dim = multiplier;
    }
    return absl::OkStatus();
  }

  const RotaryQuery& query_;
  SettingsReader& read_;
  TensorTaker& taker_;
  RotarySettings rotary_;
};

// Reads one group of Hugging Face settings: rope_parameters (also of one type of layer) of newer
// files, rope_scaling of older ones.
class HuggingFaceRotary {
 public:
  HuggingFaceRotary(const RotaryQuery& query, SettingsReader& read) : query_(query), read_(read) {
    group_ = "rope_parameters.";
    if (!query.group.empty()) {
      group_ += query.group + ".";
      by_layer_ = Has("rope_type") || Has("rope_theta");
      if (!by_layer_) group_ = "rope_parameters.";
    }
    newer_ = Has("rope_type") || Has("rope_theta");
    if (!newer_) group_ = "rope_scaling.";
  }

  StatusOr<RotarySettings> Read() {
    TESSERA_RETURN_IF_ERROR(ReadDim());
    const bool scaled = by_layer_ || query_.scaling == RotaryQuery::Scaling::kRead;
    if (newer_ && scaled && Has("rope_theta")) {
      TESSERA_ASSIGN_OR_RETURN(rotary_.base, Number("rope_theta", 1.0, kMaxBase));
    } else {
      TESSERA_ASSIGN_OR_RETURN(rotary_.base,
                               read_.NumberOr(query_.base_key, query_.base, 1.0, kMaxBase));
    }
    if (!scaled) return rotary_;
    const char* const type_name = Has("rope_type") ? "rope_type" : "type";
    TESSERA_ASSIGN_OR_RETURN(std::string type, read_.TextOr(KeyOf(type_name), "default"));
    if (type == "su") type = "longrope";
    if (type == "default") return rotary_;
    rotary_.scaling = type;
    TESSERA_RETURN_IF_ERROR(ReadScaling(type, group_ + type_name));
    return std::move(rotary_);
  }

 private:
  // Valid until the next call.
  Key KeyOf(const std::string& name) const {
    name_ = group_ + name;
    return {.huggingface = name_.c_str()};
  }
  bool Has(const std::string& name) const { return read_.Has(KeyOf(name)); }
  StatusOr<double> Number(const std::string& name, double low, double high) {
    return read_.Number(KeyOf(name), low, high);
  }
  StatusOr<double> NumberOr(const std::string& name, double absent, double low, double high) {
    return read_.NumberOr(KeyOf(name), absent, low, high);
  }

  Status ReadDim() {
    double partial = query_.partial;
    if (newer_ && Has("partial_rotary_factor")) {
      TESSERA_ASSIGN_OR_RETURN(partial, Number("partial_rotary_factor", 0.0, 1.0));
    } else {
      TESSERA_ASSIGN_OR_RETURN(
          partial, read_.NumberOr({.huggingface = "partial_rotary_factor|rotary_pct|rope_pct"},
                                  query_.partial, 0.0, 1.0));
    }
    rotary_.dim = static_cast<uint32_t>(partial * static_cast<double>(query_.head_dim));
    return absl::OkStatus();
  }

  Status ReadScaling(const std::string& type, const std::string& setting) {
    if (type == "linear" || type == "ntk") return ReadFactor();
    if (type == "dynamic") {
      rotary_.original_context = static_cast<uint64_t>(query_.max_context);
      return ReadFactor();
    }
    if (type == "llama3") return ReadLlama3();
    if (type == "yarn") return ReadYarn();
    if (type == "longrope") return ReadLongRope();
    return UnsupportedSetting(absl::StrCat("the rotary scaling \"", type, "\""), setting);
  }

  Status ReadFactor() {
    TESSERA_ASSIGN_OR_RETURN(rotary_.factor, Number("factor", 1e-3, kMaxFactor));
    return absl::OkStatus();
  }

  // A field of config.json itself has precedence; a file without any was trained at its context.
  Status ReadOriginalContext() {
    constexpr Key kOwn = {nullptr, "original_max_position_embeddings"};
    StatusOr<int64_t> original = query_.max_context;
    if (read_.Has(kOwn)) {
      original = read_.Integer(kOwn, 1, kMaxContext);
    } else if (Has("original_max_position_embeddings")) {
      original = read_.Integer(KeyOf("original_max_position_embeddings"), 1, kMaxContext);
    }
    TESSERA_RETURN_IF_ERROR(original.status());
    rotary_.original_context = static_cast<uint64_t>(*original);
    return absl::OkStatus();
  }

  // Without a factor it is the context as a multiple of the original one.
  Status ReadFactorOrRatio() {
    TESSERA_RETURN_IF_ERROR(ReadOriginalContext());
    TESSERA_ASSIGN_OR_RETURN(rotary_.factor,
                             NumberOr("factor",
                                      static_cast<double>(query_.max_context) /
                                          static_cast<double>(rotary_.original_context),
                                      1e-3, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(rotary_.attention_factor,
                             NumberOr("attention_factor", 0.0, 1e-3, kMaxFactor));
    return absl::OkStatus();
  }

  Status ReadLlama3() {
    TESSERA_RETURN_IF_ERROR(ReadFactor());
    TESSERA_ASSIGN_OR_RETURN(rotary_.low_freq_factor, Number("low_freq_factor", 1e-6, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(rotary_.high_freq_factor,
                             Number("high_freq_factor", 1e-6, kMaxFactor));
    if (rotary_.high_freq_factor <= rotary_.low_freq_factor) {
      return InvalidSetting(group_ + "high_freq_factor", "it must be above low_freq_factor");
    }
    return ReadOriginalContext();
  }

  Status ReadYarn() {
    TESSERA_RETURN_IF_ERROR(ReadFactorOrRatio());
    TESSERA_ASSIGN_OR_RETURN(rotary_.beta_fast, NumberOr("beta_fast", 32.0, 1e-3, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(rotary_.beta_slow, NumberOr("beta_slow", 1.0, 1e-3, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(rotary_.mscale, NumberOr("mscale", 0.0, 0.0, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(rotary_.mscale_all_dim,
                             NumberOr("mscale_all_dim", 0.0, 0.0, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(const int64_t truncate, read_.IntegerOr(KeyOf("truncate"), 1, 0, 1));
    rotary_.truncate = truncate != 0;
    return absl::OkStatus();
  }

  Status ReadLongRope() {
    TESSERA_RETURN_IF_ERROR(ReadFactorOrRatio());
    TESSERA_RETURN_IF_ERROR(ReadFactors("short_factor", rotary_.short_factor));
    return ReadFactors("long_factor", rotary_.long_factor);
  }

  Status ReadFactors(const std::string& name, std::vector<double>& factors) {
    TESSERA_ASSIGN_OR_RETURN(factors, read_.Numbers(KeyOf(name)));
    if (factors.size() != rotary_.dim / 2) {
      return InvalidSetting(group_ + name, absl::StrCat("it has ", factors.size(), " factors for ",
                                                        rotary_.dim, " rotated elements"));
    }
    for (const double factor : factors) {
      if (!std::isfinite(factor) || factor <= 0) {
        return InvalidSetting(group_ + name, "a factor is not positive");
      }
    }
    return absl::OkStatus();
  }

  const RotaryQuery& query_;
  SettingsReader& read_;
  std::string group_;
  mutable std::string name_;
  bool newer_ = false;
  bool by_layer_ = false;
  RotarySettings rotary_;
};

}  // namespace

StatusOr<RotarySettings> ReadRotary(const RotaryQuery& query, SettingsReader& read,
                                    TensorTaker& taker) {
  return read.gguf() ? GgufRotary(query, read, taker).Read()
                     : HuggingFaceRotary(query, read).Read();
}

}  // namespace tessera::blockzoo
