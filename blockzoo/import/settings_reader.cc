#include "blockzoo/import/settings_reader.h"

#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tessera::blockzoo {
namespace {

// Settings of the families that change what is computed unless they are absent or `neutral`.
struct Effect {
  Key key;
  double neutral;
  const char* what;
};

constexpr Effect kEffects[] = {
    {{"expert_count", "num_local_experts"}, 0, "a mixture of experts"},
    {{nullptr, "num_experts"}, 0, "a mixture of experts"},
    {{nullptr, "n_routed_experts"}, 0, "a mixture of experts"},
    {{"attention.sliding_window", "sliding_window"}, 0, "sliding-window attention"},
    {{nullptr, "attention_chunk_size"}, 0, "attention in chunks"},
    {{"attn_logit_softcapping", "attn_logit_softcapping"}, 0, "capping of attention scores"},
    {{"final_logit_softcapping", "final_logit_softcapping"}, 0, "capping of logits"},
    {{"attention.clamp_kqv", "clip_qkv"}, 0, "clamping of q, k and v"},
    {{"attention.max_alibi_bias", "alibi"}, 0, "an ALiBi bias"},
    {{"attention.scale", "attention_multiplier"}, 0, "an attention scale of its own"},
    {{"attention.temperature_scale", "rope_parameters.llama_4_scaling_beta"},
     0,
     "a temperature of attention that grows with the position"},
    {{"attention.causal", nullptr}, 1, "attention without a causal mask"},
    {{nullptr, "use_bidirectional_attention"}, 0, "attention without a causal mask"},
    {{nullptr, "is_causal"}, 1, "attention without a causal mask"},
    {{nullptr, "add_cross_attention"}, 0, "attention to an encoder"},
    {{nullptr, "scale_attn_by_inverse_layer_idx"}, 0, "an attention scale by layer"},
    {{"logit_scale", "logit_scale"}, 1, "a logit scale"},
    {{nullptr, "logits_scaling"}, 1, "a logit scale"},
    {{"residual_scale", "residual_multiplier"}, 1, "a residual scale"},
    {{"embedding_scale", "embedding_multiplier"}, 1, "an embedding scale"},
    {{nullptr, "qk_layernorm"}, 0, "norms of queries and keys"},
    {{nullptr, "use_qk_norm"}, 0, "norms of queries and keys"},
    {{"use_parallel_residual", "use_parallel_residual"}, 0, "a parallel residual"},
    {{"rope.pattern", nullptr}, 0, "layers without rotation"},
    {{nullptr, "no_rope_layers"}, 0, "layers without rotation"},
};

}  // namespace

Status UnsupportedSetting(absl::string_view what, absl::string_view setting) {
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat(what, " is not supported"),
                .where = std::string(setting),
                .why = "serving the model without it would change what it computes"});
}

Status InvalidSetting(absl::string_view setting, absl::string_view why) {
  return Error(
      absl::StatusCode::kInvalidArgument,
      {.what = absl::StrCat("the setting ", setting, " is not valid"), .why = std::string(why)});
}

SettingsReader::SettingsReader(const Checkpoint& checkpoint)
    : checkpoint_(checkpoint),
      settings_(checkpoint.settings()),
      gguf_(checkpoint.format() == "gguf") {
  const StatusOr<std::string> name = checkpoint.architecture();
  if (gguf_ && name.ok()) prefix_ = *name + ".";
  if (!gguf_ && settings_.Has("text_config.num_hidden_layers")) prefix_ = "text_config.";
}

std::string SettingsReader::Name(const Key& key) const {
  const char* const names = gguf_ ? key.gguf : key.huggingface;
  if (names == nullptr) return "";
  std::string first;
  for (const absl::string_view name : absl::StrSplit(names, '|')) {
    std::string whole = absl::StrCat(prefix_, name);
    if (settings_.Has(whole) || settings_.Has(whole + ".0")) return whole;
    if (!gguf_ && settings_.Has(std::string(name))) return std::string(name);
    if (first.empty()) first = std::move(whole);
  }
  return first;
}

bool SettingsReader::Has(const Key& key) const {
  const std::string name = Name(key);
  return !name.empty() && (settings_.Has(name) || settings_.Has(name + ".0"));
}

std::string SettingsReader::Take(const Key& key) {
  std::string name = Name(key);
  read_.insert(name);
  return name;
}

void SettingsReader::Honour(const Key& key) { read_.insert(Name(key)); }

StatusOr<int64_t> SettingsReader::Integer(const Key& key, int64_t low, int64_t high) {
  return settings_.Integer(Take(key), low, high);
}

StatusOr<int64_t> SettingsReader::IntegerOr(const Key& key, int64_t absent, int64_t low,
                                            int64_t high) {
  return Has(key) ? Integer(key, low, high) : absent;
}

StatusOr<double> SettingsReader::Number(const Key& key, double low, double high) {
  return settings_.Number(Take(key), low, high);
}

StatusOr<double> SettingsReader::NumberOr(const Key& key, double absent, double low, double high) {
  return Has(key) ? Number(key, low, high) : absent;
}

StatusOr<std::string> SettingsReader::TextOr(const Key& key, absl::string_view absent) {
  return Has(key) ? settings_.Text(Take(key)) : std::string(absent);
}

StatusOr<std::vector<double>> SettingsReader::Numbers(const Key& key) {
  if (!Has(key)) return std::vector<double>();
  return settings_.Numbers(Take(key));
}

std::vector<std::string> SettingsReader::Texts(const Key& key) {
  const std::string name = Take(key);
  std::vector<std::string> texts;
  for (;;) {
    StatusOr<std::string> text = settings_.Text(absl::StrCat(name, ".", texts.size()));
    if (!text.ok()) return texts;
    texts.push_back(*std::move(text));
  }
}

Status SettingsReader::CheckEffects() const {
  for (const Effect& effect : kEffects) {
    const std::string name = Name(effect.key);
    if (name.empty() || read_.contains(name) || !Has(effect.key)) continue;
    if (const StatusOr<double> value = settings_.Number(name, -INFINITY, INFINITY);
        value.ok() && *value == effect.neutral) {
      continue;
    }
    const StatusOr<std::string> text = settings_.Text(name);
    return UnsupportedSetting(
        text.ok() ? absl::StrCat(effect.what, " (\"", *text, "\")") : effect.what, name);
  }
  return absl::OkStatus();
}

}  // namespace tessera::blockzoo
