#include "server/core/sampling_settings.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/tokenizer.h"

namespace tessera::server {
namespace {

// Below this, dividing logits loses more than it gains; 0 is greedy.
constexpr float kLeastTemperature = 0.01f;

float Choose(const std::optional<float>& asked, const std::optional<double>& usual,
             float otherwise) {
  if (asked) return *asked;
  return usual ? static_cast<float>(*usual) : otherwise;
}

void SortUnique(std::vector<TokenId>* ids) {
  std::sort(ids->begin(), ids->end());
  ids->erase(std::unique(ids->begin(), ids->end()), ids->end());
}

}  // namespace

StatusOr<scheduler::SamplingSettings> MakeSampling(const LoadedModel& model,
                                                   const SamplingSpec& sampling, uint64_t seed) {
  const SamplingDefaults& usual = model.defaults;
  scheduler::SamplingSettings made;
  made.temperature = Choose(sampling.temperature, usual.temperature, 1.0f);
  if (made.temperature > 0) made.temperature = std::max(made.temperature, kLeastTemperature);
  made.top_p = Choose(sampling.top_p, usual.top_p, 1.0f);
  made.min_p = Choose(sampling.min_p, usual.min_p, 0.0f);
  made.typical_p = Choose(sampling.typical_p, usual.typical_p, 1.0f);
  made.repetition_penalty = Choose(sampling.repetition_penalty, usual.repetition_penalty, 1.0f);
  made.presence_penalty = Choose(sampling.presence_penalty, usual.presence_penalty, 0.0f);
  made.frequency_penalty = Choose(sampling.frequency_penalty, usual.frequency_penalty, 0.0f);
  made.top_k =
      sampling.top_k.value_or(static_cast<uint32_t>(std::max<int64_t>(usual.top_k.value_or(0), 0)));
  made.seed = sampling.seed.value_or(seed);
  std::map<TokenId, float> bias(sampling.logit_bias.begin(), sampling.logit_bias.end());
  for (const auto& [id, value] : bias) made.bias.push_back({id, value});
  made.allowed = sampling.allowed_token_ids;
  SortUnique(&made.allowed);
  for (const std::string& word : sampling.bad_words) {
    // A word stands at the start of a text or after a space, which are other tokens.
    for (const std::string& form : {word, absl::StrCat(" ", word)}) {
      TESSERA_ASSIGN_OR_RETURN(
          std::vector<TokenId> ids,
          model.tokenizer->Encode(form, {AddSpecial::kNone, ParseSpecial::kOff}));
      if (ids.empty()) continue;
      if (std::find(made.bad_words.begin(), made.bad_words.end(), ids) == made.bad_words.end()) {
        made.bad_words.push_back(std::move(ids));
      }
    }
  }
  return made;
}

scheduler::StoppingSettings MakeStopping(const LoadedModel& model, const StoppingSpec& stopping,
                                         TimePoint arrival, uint32_t max_tokens) {
  scheduler::StoppingSettings made;
  made.max_tokens = max_tokens;
  made.min_tokens = std::min(stopping.min_tokens, max_tokens);
  made.stop = stopping.stop;
  made.stop_token_ids = stopping.stop_token_ids;
  made.end_token_ids = model.end_token_ids;
  made.include_stop = stopping.include_stop;
  made.ignore_eos = stopping.ignore_eos;
  if (stopping.time_limit) made.soft_deadline = arrival + *stopping.time_limit;
  return made;
}

}  // namespace tessera::server
