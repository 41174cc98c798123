#include "server/core/zoo_model_source.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/log.h"
#include "server/text/chat_output/answer_format.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"

namespace tessera::server {
namespace {

constexpr Duration kRemovalTime = std::chrono::seconds(10);

// The pin lives exactly as long as the model.
struct PinnedModel final : LoadedModel {
  blockzoo::ZooPin pin;
};

ModelSettings SettingsOf(const SettingsStore& store, const std::string& name) {
  const std::shared_ptr<const Settings> settings = store.Current();
  if (const ModelSettings* found = settings->FindModel(name)) return *found;
  ModelSettings made;
  made.name = name;
  return made;
}

uint64_t ContextOf(const ModelSettings& settings, uint64_t chain) {
  return settings.max_context > 0 ? std::min(chain, static_cast<uint64_t>(settings.max_context))
                                  : chain;
}

// Sets what the model needs for chats; nothing when it is not for them. A template of the chain
// that cannot be read costs the chat, not the model; one that the operator names is an error.
Status LoadChat(const ModelSettings& settings, const std::map<std::string, std::string>& assets,
                LoadedModel* model) {
  if (settings.chat_template == "none") return absl::OkStatus();
  std::string text;
  if (settings.chat_template != "artifact") {
    TESSERA_ASSIGN_OR_RETURN(text, ReadSettingsFile(settings.chat_template));
    TESSERA_ASSIGN_OR_RETURN(model->chat_template, ChatTemplate::Parse(text));
  } else {
    const auto found = assets.find("chat_template");
    if (found == assets.end()) return absl::OkStatus();
    text = found->second;
    StatusOr<std::shared_ptr<const ChatTemplate>> parsed = ChatTemplate::Parse(text);
    if (!parsed.ok()) {
      model->chat_template_error = std::string(parsed.status().message());
      LogWarning("chat_template_refused",
                 {{"model", settings.name}, {"error", parsed.status().message()}});
      return absl::OkStatus();
    }
    model->chat_template = *std::move(parsed);
  }
  TESSERA_ASSIGN_OR_RETURN(model->chat_output, ChatOutput::Choose(settings.chat_output, text,
                                                                  model->tokenizer->token_bytes()));
  return absl::OkStatus();
}

template <typename T>
void Keep(const std::optional<T>& under, std::optional<T>* value) {
  if (!*value) *value = under;
}

}  // namespace

scheduler::TokenTable MakeTokenTable(const Tokenizer& tokenizer, uint64_t vocab) {
  const TokenBytes& bytes = tokenizer.token_bytes();
  scheduler::TokenTable table;
  table.offsets = bytes.offsets();
  table.bytes = bytes.data();
  while (table.offsets.size() < vocab + 1) table.offsets.push_back(table.offsets.back());
  return table;
}

SamplingDefaults DefaultsOf(absl::string_view generation_config_json) {
  SamplingDefaults defaults;
  const auto json = nlohmann::json::parse(std::string(generation_config_json), nullptr, false);
  if (!json.is_object()) return defaults;
  const auto number = [&json](const char* key, double low, double high) -> std::optional<double> {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number()) return std::nullopt;
    const double value = found->get<double>();
    if (!(value >= low && value <= high)) return std::nullopt;
    return value;
  };
  constexpr double kLeast = 1e-6;
  defaults.temperature = number("temperature", 0, 2);
  defaults.top_p = number("top_p", kLeast, 1);
  defaults.min_p = number("min_p", 0, 1);
  defaults.typical_p = number("typical_p", kLeast, 1);
  defaults.repetition_penalty = number("repetition_penalty", kLeast, 2);
  if (const auto top_k = number("top_k", 0, 1e9)) {
    defaults.top_k = static_cast<int64_t>(std::llround(*top_k));
  }
  const auto sample = json.find("do_sample");
  if (sample != json.end() && sample->is_boolean() && !sample->get<bool>()) {
    defaults.temperature = 0;
  }
  return defaults;
}

SamplingDefaults Merge(const SamplingDefaults& over, const SamplingDefaults& under) {
  SamplingDefaults merged = over;
  Keep(under.temperature, &merged.temperature);
  Keep(under.top_p, &merged.top_p);
  Keep(under.top_k, &merged.top_k);
  Keep(under.min_p, &merged.min_p);
  Keep(under.typical_p, &merged.typical_p);
  Keep(under.repetition_penalty, &merged.repetition_penalty);
  Keep(under.presence_penalty, &merged.presence_penalty);
  Keep(under.frequency_penalty, &merged.frequency_penalty);
  Keep(under.max_tokens, &merged.max_tokens);
  return merged;
}

struct ZooModelSource::Removals {
  std::mutex mutex;
  std::condition_variable changed;
  uint32_t under_way = 0;
};

ZooModelSource::ZooModelSource(const Parts& parts)
    : parts_(parts), removals_(std::make_shared<Removals>()) {}

Status ZooModelSource::CheckSize(const std::string& name,
                                 const blockzoo::ChainManifest& chain) const {
  std::map<Digest, uint64_t> tensors;
  for (const Digest& digest : chain.blocks) {
    TESSERA_ASSIGN_OR_RETURN(const blockzoo::BlockManifest block, parts_.zoo->Block(digest));
    for (const blockzoo::TensorRef& ref : block.tensors) {
      TESSERA_ASSIGN_OR_RETURN(tensors[ref.tensor], blockzoo::TensorBytes(ref.dtype, ref.shape));
    }
  }
  uint64_t bytes = 0;
  for (const auto& [digest, size] : tensors) bytes += size;
  if (bytes <= parts_.weight_budget) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition,
               {absl::StrCat("model \"", name, "\" does not fit: its weights take ", bytes >> 20,
                             " MiB, all models may take ", parts_.weight_budget >> 20, " MiB"),
                "engine.memory_fraction", "",
                "free memory, raise engine.memory_fraction, or serve a smaller form of the model"});
}

Status ZooModelSource::CheckRoom(const std::string& name) const {
  uint64_t live = parts_.binder->LiveWeightBytes();
  if (live > parts_.weight_budget) {
    // Otherwise a model that was dropped to make room would count until the engine let go of it,
    // and others would be dropped in vain.
    std::unique_lock lock(removals_->mutex);
    removals_->changed.wait_for(lock, kRemovalTime, [this] { return removals_->under_way == 0; });
    live = parts_.binder->LiveWeightBytes();
  }
  if (live <= parts_.weight_budget) return absl::OkStatus();
  return Error(absl::StatusCode::kResourceExhausted,
               {absl::StrCat("model \"", name, "\" does not fit: all loaded weights would take ",
                             live >> 20, " MiB of ", parts_.weight_budget >> 20, " MiB"),
                "engine.memory_fraction", "", "unload a model, or raise engine.memory_fraction"});
}

std::vector<std::string> ZooModelSource::Names() {
  std::set<std::string> names;
  const StatusOr<std::vector<std::string>> chains = parts_.zoo->ChainNames();
  if (chains.ok()) names.insert(chains->begin(), chains->end());
  const std::shared_ptr<const Settings> settings = parts_.settings->Current();
  std::vector<std::string> named;
  for (const ModelSettings& model : settings->models) {
    if (names.count(model.ChainName()) > 0) named.push_back(model.name);
  }
  names.insert(named.begin(), named.end());
  return {names.begin(), names.end()};
}

StatusOr<ModelSummary> ZooModelSource::Describe(const std::string& name) {
  const ModelSettings settings = SettingsOf(*parts_.settings, name);
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::ChainManifest chain,
                           parts_.zoo->Chain(settings.ChainName()));
  ModelSummary summary;
  summary.revision = blockzoo::RevisionOf(chain).Hex();
  summary.max_context = ContextOf(settings, chain.max_context);
  summary.blocks = static_cast<uint32_t>(chain.blocks.size());
  const bool own = settings.chat_template == "artifact" && chain.assets.count("chat_template") > 0;
  const bool named = settings.chat_template != "artifact" && settings.chat_template != "none";
  summary.chat = own || named ? ModelSummary::Chat::kYes : ModelSummary::Chat::kNo;
  if (parts_.binder->Pooling(chain).ok()) summary.embeddings = ModelSummary::Embeddings::kYes;
  return summary;
}

StatusOr<std::unique_ptr<LoadedModel>> ZooModelSource::Load(const std::string& name, ChainId id,
                                                            const Progress& progress) {
  const ModelSettings settings = SettingsOf(*parts_.settings, name);
  TESSERA_ASSIGN_OR_RETURN(blockzoo::PinnedChain pinned, parts_.zoo->Pin(settings.ChainName()));
  TESSERA_RETURN_IF_ERROR(CheckSize(name, pinned.chain));
  std::map<std::string, std::string> assets;
  for (const auto& [key, digest] : pinned.chain.assets) {
    TESSERA_ASSIGN_OR_RETURN(assets[key], parts_.zoo->Asset(digest));
  }
  auto model = std::make_unique<PinnedModel>();
  model->name = name;
  model->chain_id = id;
  TESSERA_ASSIGN_OR_RETURN(model->tokenizer, TokenizerFromAssets(assets));
  TESSERA_RETURN_IF_ERROR(LoadChat(settings, assets, model.get()));
  TESSERA_ASSIGN_OR_RETURN(
      model->chain,
      parts_.binder->Bind(pinned.chain, *parts_.zoo, [&progress](size_t done, size_t total) {
        progress(static_cast<uint32_t>(done), static_cast<uint32_t>(total));
      }));
  TESSERA_RETURN_IF_ERROR(CheckRoom(name));
  model->pin = std::move(pinned.pin);
  model->revision = model->chain->revision().Hex();
  model->vocab = model->chain->vocab();
  model->max_context = ContextOf(settings, model->chain->max_context());
  model->weight_bytes = model->chain->weight_bytes();
  model->blocks = static_cast<uint32_t>(model->chain->blocks().size());
  model->tokens = std::make_shared<const scheduler::TokenTable>(
      MakeTokenTable(*model->tokenizer, model->vocab));
  std::set<TokenId> ends(pinned.chain.end_token_ids.begin(), pinned.chain.end_token_ids.end());
  if (const auto eos = model->tokenizer->eos()) ends.insert(*eos);
  ends.erase(ends.lower_bound(static_cast<TokenId>(model->vocab)), ends.end());
  model->end_token_ids.assign(ends.begin(), ends.end());
  model->defaults = Merge(settings.defaults, DefaultsOf(assets["generation_config.json"]));
  model->loaded_unix_seconds = SystemClock().UnixSeconds();
  scheduler::EngineChain chain;
  chain.name = name;
  chain.chain = model->chain;
  chain.tokens = model->tokens;
  if (parts_.metrics != nullptr) chain.metrics = ModelMetrics(*parts_.metrics, name);
  TESSERA_RETURN_IF_ERROR(parts_.engine->AddChain(id, chain));
  return std::unique_ptr<LoadedModel>(std::move(model));
}

void ZooModelSource::Remove(std::unique_ptr<LoadedModel> model) {
  const ChainId id = model->chain_id;
  {
    const std::lock_guard lock(removals_->mutex);
    ++removals_->under_way;
  }
  // Callbacks are copied on their way; what they free has one owner.
  auto owner = std::make_shared<std::unique_ptr<LoadedModel>>(std::move(model));
  auto free = [removals = removals_, owner = std::move(owner)] {
    owner->reset();
    const std::lock_guard lock(removals->mutex);
    --removals->under_way;
    removals->changed.notify_all();
  };
  // Unmapping takes its time, which is not the engine's.
  parts_.engine->RemoveChain(id,
                             [pool = parts_.pool, free = std::move(free)] { pool->Post(free); });
}

}  // namespace tessera::server
