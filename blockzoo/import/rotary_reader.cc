#include "blockzoo/import/rotary_reader.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {
namespace {

constexpr double kMaxFactor = 1e6;

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

StatusOr<RotarySettings> ReadGguf(const RotaryQuery& query, SettingsReader& read,
                                  TensorTaker& taker) {
  RotarySettings rotary;
  TESSERA_ASSIGN_OR_RETURN(
      const int64_t dim,
      read.IntegerOr({.gguf = "rope.dimension_count"},
                     static_cast<int64_t>(query.partial * static_cast<double>(query.head_dim)), 2,
                     kMaxHeadDim));
  rotary.dim = static_cast<uint32_t>(dim);
  TESSERA_ASSIGN_OR_RETURN(rotary.base,
                           read.NumberOr({.gguf = "rope.freq_base"}, query.base, 1.0, 1e12));
  TESSERA_ASSIGN_OR_RETURN(const std::string scaling,
                           read.TextOr({.gguf = "rope.scaling.type"}, "none"));
  if (scaling == "linear") {
    TESSERA_ASSIGN_OR_RETURN(rotary.factor,
                             read.Number({.gguf = "rope.scaling.factor"}, 1e-3, kMaxFactor));
  } else if (scaling == "none") {
    TESSERA_ASSIGN_OR_RETURN(rotary.factor,
                             read.NumberOr({.gguf = "rope.scale_linear"}, 1.0, 1e-3, kMaxFactor));
  } else {
    return UnsupportedSetting(absl::StrCat("the rotary scaling \"", scaling, "\""),
                              "rope.scaling.type");
  }
  if (rotary.factor != 1.0) rotary.scaling = "linear";
  TESSERA_ASSIGN_OR_RETURN(rotary.frequency_factors,
                           TakeFactors("rope_freqs.weight", rotary.dim, taker));
  return rotary;
}

// Reads one group of Hugging Face settings: rope_parameters (also of one type of layer) of newer
// files, rope_scaling of older ones.
class HuggingFaceRotary {
 public:
  HuggingFaceRotary(const RotaryQuery& query, SettingsReader& read) : query_(query), read_(read) {
    const std::string newer = query.group.empty()
                                  ? "rope_parameters."
                                  : absl::StrCat("rope_parameters.", query.group, ".");
    const auto has = [&](const char* name) {
      return read.Has({.huggingface = (newer + name).c_str()});
    };
    newer_ = has("rope_type") || has("rope_theta");
    group_ = newer_ ? newer : "rope_scaling.";
  }

  StatusOr<RotarySettings> Read() {
    RotarySettings rotary;
    TESSERA_RETURN_IF_ERROR(ReadDim(rotary));
    const bool own_base = newer_ && Has("rope_theta");
    TESSERA_ASSIGN_OR_RETURN(
        rotary.base, own_base ? Number("rope_theta", 1.0, 1e12)
                              : read_.NumberOr({.huggingface = "rope_theta|rotary_emb_base"},
                                               query_.base, 1.0, 1e12));
    const char* const type_name = Has("rope_type") ? "rope_type" : "type";
    TESSERA_ASSIGN_OR_RETURN(
        const std::string type,
        read_.TextOr({.huggingface = (group_ + type_name).c_str()}, "default"));
    if (type == "default") return rotary;
    if (type != "linear" && type != "llama3") {
      return UnsupportedSetting(absl::StrCat("the rotary scaling \"", type, "\""),
                                group_ + type_name);
    }
    rotary.scaling = type;
    TESSERA_ASSIGN_OR_RETURN(rotary.factor, Number("factor", 1e-3, kMaxFactor));
    if (type == "llama3") TESSERA_RETURN_IF_ERROR(ReadLlama3(rotary));
    return rotary;
  }

 private:
  bool Has(const std::string& name) const {
    return read_.Has({.huggingface = (group_ + name).c_str()});
  }
  StatusOr<double> Number(const std::string& name, double low, double high) {
    return read_.Number({.huggingface = (group_ + name).c_str()}, low, high);
  }

  Status ReadDim(RotarySettings& rotary) {
    double partial = query_.partial;
    if (newer_ && Has("partial_rotary_factor")) {
      TESSERA_ASSIGN_OR_RETURN(partial, Number("partial_rotary_factor", 0.0, 1.0));
    } else {
      TESSERA_ASSIGN_OR_RETURN(
          partial, read_.NumberOr({.huggingface = "partial_rotary_factor|rotary_pct|rope_pct"},
                                  query_.partial, 0.0, 1.0));
    }
    rotary.dim = static_cast<uint32_t>(partial * static_cast<double>(query_.head_dim));
    return absl::OkStatus();
  }

  Status ReadLlama3(RotarySettings& rotary) {
    TESSERA_ASSIGN_OR_RETURN(rotary.low_freq_factor, Number("low_freq_factor", 1e-6, kMaxFactor));
    TESSERA_ASSIGN_OR_RETURN(rotary.high_freq_factor, Number("high_freq_factor", 1e-6, kMaxFactor));
    if (rotary.high_freq_factor <= rotary.low_freq_factor) {
      return InvalidSetting(group_ + "high_freq_factor", "it must be above low_freq_factor");
    }
    const std::string name = group_ + "original_max_position_embeddings";
    TESSERA_ASSIGN_OR_RETURN(const int64_t original,
                             read_.Integer({.huggingface = name.c_str()}, 1, kMaxContext));
    rotary.original_context = static_cast<uint64_t>(original);
    return absl::OkStatus();
  }

  const RotaryQuery& query_;
  SettingsReader& read_;
  bool newer_ = false;
  std::string group_;
};

}  // namespace

StatusOr<RotarySettings> ReadRotary(const RotaryQuery& query, SettingsReader& read,
                                    TensorTaker& taker) {
  return read.gguf() ? ReadGguf(query, read, taker) : HuggingFaceRotary(query, read).Read();
}

}  // namespace tessera::blockzoo
