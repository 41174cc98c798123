#include "server/core/model_registry.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/log.h"
#include "server/core/errors.h"

namespace tessera::server {
namespace {

// An operator reads why a load failed; a client reads no text of our files.
enum class Failure : uint8_t { kAsTold, kWhole };

struct Waiter {
  ModelRegistry::Progress progress;
  ModelRegistry::Ready ready;
  Failure failure = Failure::kAsTold;
};

struct Entry {
  ModelState state = ModelState::kUnloaded;
  ModelPtr model;
  Status error;
  TimePoint failed_at{};
  uint64_t last_use = 0;
  uint32_t blocks_done = 0;
  uint32_t blocks_total = 0;
  uint32_t retiring = 0;  // chains of this name that have not been given back
  std::vector<Waiter> waiters;
  std::vector<std::function<void()>> on_gone;  // of an unload
};

// What clients are told of a failed load. Too little room is the server's state, not the model's.
Status ToldOf(const std::string& name, const Status& error) {
  if (error.code() == absl::StatusCode::kResourceExhausted) {
    return MakeError(Condition::kUnavailable,
                     absl::StrCat("model \"", name, "\" cannot be loaded now: there is no room"));
  }
  return MakeError(Condition::kModelFailed,
                   absl::StrCat("model \"", name, "\" could not be loaded"));
}

ModelSummary SummaryOf(const LoadedModel& model) {
  ModelSummary summary;
  summary.revision = model.revision;
  summary.max_context = model.max_context;
  summary.blocks = model.blocks;
  if (model.chat_template) summary.chat = ModelSummary::Chat::kYes;
  if (model.chain && model.chain->pooling().ok()) {
    summary.embeddings = ModelSummary::Embeddings::kYes;
  }
  return summary;
}

}  // namespace

const char* NameOf(ModelState state) {
  switch (state) {
    case ModelState::kUnloaded:
      return "unloaded";
    case ModelState::kLoading:
      return "loading";
    case ModelState::kReady:
      return "ready";
    case ModelState::kDraining:
      return "draining";
    case ModelState::kFailed:
      return "failed";
  }
  return "";
}

struct ModelRegistry::Impl : std::enable_shared_from_this<ModelRegistry::Impl> {
  Impl(ModelSource* source_in, const Options& options_in) : source(source_in), options(options_in) {
    if (options.clock == nullptr) options.clock = &SystemClock();
  }

  void Loader();
  void LoadOne(const std::string& name);
  StatusOr<ModelPtr> LoadMakingRoom(const std::string& name);
  bool DropLeastRecentlyUsed();
  ModelPtr Wrap(std::unique_ptr<LoadedModel> model);
  void Gone(std::unique_ptr<LoadedModel> model);
  bool Known(const std::string& name);
  void StartLoad(Entry& entry, const std::string& name);
  void Notify(const std::string& name, ModelState state);
  void ReportProgress(const std::string& name, uint32_t done, uint32_t total);

  ModelSource* const source;
  Options options;

  std::mutex mutex;
  std::condition_variable work;
  std::map<std::string, Entry> entries;
  std::deque<std::string> to_load;
  Listener listener;
  uint64_t uses = 0;
  uint32_t next_chain = 1;
  bool stopping = false;
  std::thread loader;
};

bool ModelRegistry::Impl::Known(const std::string& name) {
  const std::vector<std::string> names = source->Names();
  return std::find(names.begin(), names.end(), name) != names.end();
}

void ModelRegistry::Impl::Notify(const std::string& name, ModelState state) {
  Listener call;
  {
    const std::lock_guard lock(mutex);
    call = listener;
  }
  if (call) call(name, state);
}

// Called with the lock held.
void ModelRegistry::Impl::StartLoad(Entry& entry, const std::string& name) {
  entry.state = ModelState::kLoading;
  entry.blocks_done = entry.blocks_total = 0;
  to_load.push_back(name);
  work.notify_all();
}

void ModelRegistry::Impl::ReportProgress(const std::string& name, uint32_t done, uint32_t total) {
  std::vector<Progress> calls;
  {
    const std::lock_guard lock(mutex);
    Entry& entry = entries[name];
    entry.blocks_done = done;
    entry.blocks_total = total;
    for (const Waiter& waiter : entry.waiters) {
      if (waiter.progress) calls.push_back(waiter.progress);
    }
  }
  for (const Progress& call : calls) call(done, total);
}

// The last holder of the returned pointer gives the model back to its source.
ModelPtr ModelRegistry::Impl::Wrap(std::unique_ptr<LoadedModel> model) {
  {
    const std::lock_guard lock(mutex);
    ++entries[model->name].retiring;
  }
  const LoadedModel* const raw = model.release();
  return ModelPtr(raw, [impl = shared_from_this()](const LoadedModel* gone) {
    impl->Gone(std::unique_ptr<LoadedModel>(const_cast<LoadedModel*>(gone)));
  });
}

void ModelRegistry::Impl::Gone(std::unique_ptr<LoadedModel> model) {
  const std::string name = model->name;
  source->Remove(std::move(model));
  std::vector<std::function<void()>> calls;
  bool unloaded = false;
  {
    const std::lock_guard lock(mutex);
    Entry& entry = entries[name];
    --entry.retiring;
    if (entry.state == ModelState::kDraining && entry.retiring == 0) {
      entry.state = ModelState::kUnloaded;
      calls.swap(entry.on_gone);
      unloaded = true;
    }
  }
  if (!unloaded) return;
  LogInfo("model_unloaded", {{"model", name}});
  Notify(name, ModelState::kUnloaded);
  for (const auto& call : calls) call();
}

// Lets go of the ready model that no request holds and that was used longest ago.
bool ModelRegistry::Impl::DropLeastRecentlyUsed() {
  std::string name;
  ModelPtr victim;
  {
    const std::lock_guard lock(mutex);
    Entry* oldest = nullptr;
    for (auto& [key, entry] : entries) {
      if (entry.state != ModelState::kReady || entry.model.use_count() != 1) continue;
      if (oldest != nullptr && entry.last_use >= oldest->last_use) continue;
      oldest = &entry;
      name = key;
    }
    if (oldest == nullptr) return false;
    victim = std::move(oldest->model);
    oldest->state = ModelState::kUnloaded;
  }
  LogInfo("model_evicted", {{"model", name}});
  victim.reset();
  Notify(name, ModelState::kUnloaded);
  return true;
}

StatusOr<ModelPtr> ModelRegistry::Impl::LoadMakingRoom(const std::string& name) {
  const auto progress = [this, &name](uint32_t done, uint32_t total) {
    ReportProgress(name, done, total);
  };
  while (true) {
    ChainId id;
    {
      const std::lock_guard lock(mutex);
      id = ChainId(next_chain++);
    }
    StatusOr<std::unique_ptr<LoadedModel>> loaded = source->Load(name, id, progress);
    if (loaded.ok()) return Wrap(std::move(*loaded));
    if (loaded.status().code() != absl::StatusCode::kResourceExhausted) return loaded.status();
    if (!DropLeastRecentlyUsed()) return loaded.status();
  }
}

void ModelRegistry::Impl::LoadOne(const std::string& name) {
  Notify(name, ModelState::kLoading);
  const TimePoint begin = options.clock->Now();
  StatusOr<ModelPtr> loaded = LoadMakingRoom(name);
  const double seconds = std::chrono::duration<double>(options.clock->Now() - begin).count();
  std::vector<Waiter> waiters;
  ModelPtr old;  // released outside the lock
  ModelState state = ModelState::kReady;
  {
    const std::lock_guard lock(mutex);
    Entry& entry = entries[name];
    waiters.swap(entry.waiters);
    if (loaded.ok()) {
      old = std::move(entry.model);
      entry.model = *loaded;
      entry.error = absl::OkStatus();
      entry.last_use = ++uses;
    } else {
      // A reload that fails leaves what was there.
      state = entry.model ? ModelState::kReady : ModelState::kFailed;
      entry.error = loaded.status();
      entry.failed_at = options.clock->Now();
    }
    entry.state = state;
  }
  if (loaded.ok()) {
    LogInfo("model_loaded",
            {{"model", name}, {"revision", (*loaded)->revision}, {"seconds", seconds}});
  } else {
    LogError("model_load_failed", {{"model", name}, {"error", loaded.status().ToString()}});
  }
  old.reset();
  Notify(name, state);
  const StatusOr<ModelPtr> told = loaded.ok() ? loaded : ToldOf(name, loaded.status());
  for (const Waiter& waiter : waiters) {
    waiter.ready(waiter.failure == Failure::kWhole ? loaded : told);
  }
}

void ModelRegistry::Impl::Loader() {
  std::unique_lock lock(mutex);
  while (true) {
    work.wait(lock, [this] { return stopping || !to_load.empty(); });
    if (stopping) return;
    const std::string name = to_load.front();
    to_load.pop_front();
    lock.unlock();
    LoadOne(name);
    lock.lock();
  }
}

ModelRegistry::ModelRegistry(ModelSource* source, const Options& options)
    : impl_(std::make_shared<Impl>(source, options)) {
  impl_->loader = std::thread([impl = impl_.get()] { impl->Loader(); });
}

ModelRegistry::~ModelRegistry() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
    impl_->listener = nullptr;
  }
  impl_->work.notify_all();
  impl_->loader.join();
  std::vector<Waiter> waiters;
  std::vector<ModelPtr> models;
  {
    const std::lock_guard lock(impl_->mutex);
    for (auto& [name, entry] : impl_->entries) {
      std::move(entry.waiters.begin(), entry.waiters.end(), std::back_inserter(waiters));
      entry.waiters.clear();
      models.push_back(std::move(entry.model));
    }
  }
  for (const Waiter& waiter : waiters) {
    waiter.ready(MakeError(Condition::kDraining, "the server is stopping"));
  }
}

void ModelRegistry::Acquire(const std::string& name, Progress progress, Ready ready) {
  const bool known = Check(name).ok();
  StatusOr<ModelPtr> answer = MakeError(Condition::kInternal, "no answer");
  {
    const std::lock_guard lock(impl_->mutex);
    const auto found = impl_->entries.find(name);
    const bool held = found != impl_->entries.end() && found->second.model != nullptr;
    if (impl_->stopping) {
      answer = MakeError(Condition::kDraining, "the server is stopping");
    } else if (!known && !held) {
      answer = ModelNotFound(name);
    } else {
      Entry& entry = impl_->entries[name];
      const bool retry =
          entry.state == ModelState::kFailed &&
          impl_->options.clock->Now() - entry.failed_at >= impl_->options.retry_failed_after;
      if (entry.model && entry.state != ModelState::kDraining) {
        entry.last_use = ++impl_->uses;
        answer = entry.model;
      } else if (entry.state == ModelState::kDraining) {
        answer = MakeError(Condition::kDraining,
                           absl::StrCat("model \"", name,
                                        "\" is being unloaded; load it again, or ask for another"));
      } else if (entry.state == ModelState::kFailed && !retry) {
        answer = ToldOf(name, entry.error);
      } else {
        entry.waiters.push_back({std::move(progress), std::move(ready)});
        if (entry.state != ModelState::kLoading) impl_->StartLoad(entry, name);
        return;
      }
    }
  }
  ready(std::move(answer));
}

Status ModelRegistry::Check(const std::string& name) {
  {
    const std::lock_guard lock(impl_->mutex);
    const auto found = impl_->entries.find(name);
    if (found != impl_->entries.end() && found->second.model) return absl::OkStatus();
  }
  return impl_->Known(name) ? absl::OkStatus() : ModelNotFound(name);
}

void ModelRegistry::Reload(const std::string& name, Progress progress, Ready ready) {
  const bool known = Check(name).ok();
  Status refused;
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->stopping) {
      refused = MakeError(Condition::kDraining, "the server is stopping");
    } else if (!known) {
      refused = ModelNotFound(name);
    } else {
      Entry& entry = impl_->entries[name];
      if (entry.state == ModelState::kDraining) {
        refused =
            MakeError(Condition::kDraining,
                      absl::StrCat("model \"", name,
                                   "\" is being unloaded; load it again, or ask for another"));
      } else {
        entry.waiters.push_back({std::move(progress), std::move(ready), Failure::kWhole});
        if (entry.state != ModelState::kLoading) impl_->StartLoad(entry, name);
        return;
      }
    }
  }
  ready(refused);
}

StatusOr<std::optional<ChainId>> ModelRegistry::Unload(const std::string& name,
                                                       std::function<void()> done) {
  TESSERA_RETURN_IF_ERROR(Check(name));
  ModelPtr model;
  std::optional<ChainId> chain;
  {
    const std::lock_guard lock(impl_->mutex);
    Entry& entry = impl_->entries[name];
    if (entry.state == ModelState::kLoading) {
      return MakeError(Condition::kPrecondition,
                       absl::StrCat("model \"", name, "\" is being loaded; unload it afterwards"));
    }
    if (entry.state == ModelState::kFailed) entry.state = ModelState::kUnloaded;
    if (entry.retiring > 0) {
      entry.state = ModelState::kDraining;
      entry.on_gone.push_back(std::move(done));
      done = nullptr;
      if (entry.model) chain = entry.model->chain_id;
      model = std::move(entry.model);
    }
  }
  if (done) {
    done();
    return chain;
  }
  impl_->Notify(name, ModelState::kDraining);
  model.reset();
  return chain;
}

std::vector<ModelInfo> ModelRegistry::List() {
  const std::vector<std::string> names = impl_->source->Names();
  std::map<std::string, ModelInfo> infos;
  for (const std::string& name : names) {
    infos[name].name = name;
    StatusOr<ModelSummary> summary = impl_->source->Describe(name);
    if (summary.ok()) infos[name].summary = std::move(*summary);
  }
  const std::lock_guard lock(impl_->mutex);
  for (const auto& [name, entry] : impl_->entries) {
    if (!entry.model && entry.retiring == 0 && infos.find(name) == infos.end()) continue;
    ModelInfo& info = infos[name];
    info.name = name;
    info.state = entry.state;
    info.model = entry.model;
    info.error = entry.error;
    info.blocks_done = entry.blocks_done;
    info.blocks_total = entry.blocks_total;
    if (entry.model) info.summary = SummaryOf(*entry.model);
    info.users = entry.model ? static_cast<uint32_t>(entry.model.use_count() - 2) : 0;
    info.retiring = entry.retiring - (entry.model ? 1 : 0);
  }
  std::vector<ModelInfo> list;
  for (auto& [name, info] : infos) list.push_back(std::move(info));
  return list;
}

void ModelRegistry::SetListener(Listener listener) {
  const std::lock_guard lock(impl_->mutex);
  impl_->listener = std::move(listener);
}

}  // namespace tessera::server
