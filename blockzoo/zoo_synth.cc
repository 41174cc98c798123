// Zoo::Synthesise: chains of true shape whose tensors are recipes, or the bytes that these give.
#include <algorithm>
#include <chrono>
#include <map>

#include "absl/strings/str_cat.h"
#include "blockzoo/synthetic_models.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_mapping.h"
#include "blockzoo/zoo_objects.h"
#include "kernels/thread_pool.h"

namespace tessera::blockzoo {
namespace {

constexpr uint64_t kMaxVariants = 1000;
constexpr absl::string_view kChatTemplate =
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}";

Status Bad(absl::string_view what, absl::string_view why, absl::string_view fix) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = std::string(what), .why = std::string(why), .fix = std::string(fix)});
}

Status CheckOptions(const SynthOptions& options, const SyntheticModel& model) {
  if (options.variants < 1 || options.variants > kMaxVariants) {
    return Bad("the number of variants is out of range",
               absl::StrCat("it is ", options.variants, ", allowed 1 to ", kMaxVariants), "");
  }
  if (options.shared_layers > model.layers) {
    return Bad("variants cannot share that many layers",
               absl::StrCat(options.like, " has ", model.layers, " layers, asked for ",
                            options.shared_layers),
               "");
  }
  return absl::OkStatus();
}

std::string NameOfVariant(const SynthOptions& options, uint64_t variant) {
  return options.variants == 1 ? options.name : absl::StrCat(options.name, "-", variant + 1);
}

// The layer that a block belongs to; none for the embedding and the lm_head.
std::optional<uint64_t> LayerOf(const ChainPlan& plan, size_t block) {
  if (block == 0 || block + 1 == plan.blocks.size()) return std::nullopt;
  return (block - 1) / 2;
}

// Turns recipes into blocks, and into objects when it has a writer.
class SynthStore {
 public:
  SynthStore(const SynthOptions& options, const SyntheticModel& model, uint64_t total_bytes)
      : options_(options), model_(model), total_bytes_(total_bytes) {}

  // The blocks of one variant. `writer` null: only the identities are worked out.
  StatusOr<std::vector<Digest>> Store(uint64_t variant, ObjectWriter* writer) {
    std::vector<Digest> blocks;
    for (size_t i = 0; i < model_.plan.blocks.size(); ++i) {
      const BlockPlan& block = model_.plan.blocks[i];
      const std::optional<uint64_t> layer = LayerOf(model_.plan, i);
      const uint64_t own = layer.has_value() && *layer >= options_.shared_layers ? variant : 0;
      BlockManifest manifest{block.type, block.attributes, {}};
      for (const BlockPlan::Part& part : block.tensors) {
        TESSERA_ASSIGN_OR_RETURN(
            const SyntheticRecipe recipe,
            RecipeFor(model_, part.tensor, options_.dtype, options_.seed, own));
        TESSERA_ASSIGN_OR_RETURN(const Digest digest, StoreTensor(recipe, writer));
        manifest.tensors.push_back({part.role, digest, recipe.dtype, recipe.shape});
      }
      std::sort(manifest.tensors.begin(), manifest.tensors.end(),
                [](const TensorRef& a, const TensorRef& b) { return a.role < b.role; });
      blocks.push_back(blockzoo::IdentityOf(manifest));
      if (writer != nullptr) {
        TESSERA_RETURN_IF_ERROR(
            writer->Put(ObjectKind::kBlock, blocks.back(), BytesOf(CanonicalText(manifest))));
      }
    }
    return blocks;
  }

  // Of the distinct tensors so far.
  [[nodiscard]] uint64_t weight_bytes() const { return weight_bytes_; }

 private:
  struct Stored {
    Digest digest;
    bool written = false;
  };

  StatusOr<Digest> StoreTensor(const SyntheticRecipe& recipe, ObjectWriter* writer) {
    const Digest identity = blockzoo::IdentityOf(recipe);
    const auto [known, fresh] = stored_.try_emplace(identity);
    Stored& stored = known->second;
    if (!fresh && (stored.written || writer == nullptr)) return stored.digest;
    TESSERA_ASSIGN_OR_RETURN(const kernels::SyntheticTensor generator, GeneratorOf(recipe));
    if (fresh) weight_bytes_ += generator.bytes;
    if (options_.storage == SyntheticStorage::kRecipes) {
      stored.digest = identity;
      if (writer != nullptr) {
        TESSERA_RETURN_IF_ERROR(
            writer->Put(ObjectKind::kRecipe, identity, BytesOf(CanonicalText(recipe))));
      }
    } else {
      TESSERA_RETURN_IF_ERROR(Materialise(recipe, generator, writer, stored.digest));
    }
    stored.written = writer != nullptr;
    return stored.digest;
  }

  Status Materialise(const SyntheticRecipe& recipe, const kernels::SyntheticTensor& generator,
                     ObjectWriter* writer, Digest& digest) {
    TESSERA_ASSIGN_OR_RETURN(const auto memory, MappedFile::Anonymous(generator.bytes));
    kernels::FillSynthetic(generator, memory->writable(), kernels::ThreadPool::UsableProcessors());
    TensorHasher hasher(recipe.dtype, recipe.shape);
    hasher.Add(memory->bytes());
    digest = hasher.Finish();
    if (writer != nullptr) {
      TESSERA_RETURN_IF_ERROR(writer->Put(ObjectKind::kTensor, digest, memory->bytes()));
    }
    done_bytes_ += generator.bytes;
    if (options_.progress) options_.progress(done_bytes_, std::max(done_bytes_, total_bytes_));
    return absl::OkStatus();
  }

  const SynthOptions& options_;
  const SyntheticModel& model_;
  const uint64_t total_bytes_;
  uint64_t done_bytes_ = 0;
  uint64_t weight_bytes_ = 0;
  std::map<Digest, Stored> stored_;  // by the recipe's identity
};

// Bytes of the distinct tensors of all variants.
StatusOr<uint64_t> BytesInAll(SynthOptions options, const SyntheticModel& model) {
  options.storage = SyntheticStorage::kRecipes;
  SynthStore recipes(options, model, 0);
  for (uint64_t variant = 0; variant < options.variants; ++variant) {
    TESSERA_RETURN_IF_ERROR(recipes.Store(variant, nullptr).status());
  }
  return recipes.weight_bytes();
}

ChainManifest ChainOf(const SynthOptions& options, const SyntheticModel& model, uint64_t variant) {
  ChainManifest chain = model.plan.chain;
  chain.name = NameOfVariant(options, variant);
  chain.provenance["format"] =
      options.storage == SyntheticStorage::kRecipes ? "synthetic" : "synthetic, materialised";
  chain.provenance["source"] =
      absl::StrCat("like ", options.like, ", seed ", options.seed, ", matrices of layers in ",
                   kernels::InfoOf(options.dtype).name);
  if (options.variants > 1) {
    chain.provenance["variant"] =
        absl::StrCat(variant + 1, " of ", options.variants, ", which share ", options.shared_layers,
                     " of ", model.layers, " layers");
  }
  return chain;
}

}  // namespace

StatusOr<SynthReport> Zoo::Synthesise(const SynthOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  TESSERA_ASSIGN_OR_RETURN(const SyntheticModel model, FindSyntheticModel(options.like));
  TESSERA_RETURN_IF_ERROR(CheckOptions(options, model));
  SynthReport report;
  const std::map<std::string, std::string> assets = {
      {"byte_vocabulary.json", absl::StrCat("{\"vocab\":", model.plan.chain.vocab, "}")},
      {"chat_template", std::string(kChatTemplate)}};
  bool taken = false;
  for (uint64_t variant = 0; variant < options.variants; ++variant) {
    ChainManifest chain = ChainOf(options, model, variant);
    TESSERA_RETURN_IF_ERROR(CheckChainName(chain.name));
    for (const auto& [name, text] : assets) chain.assets[name] = AssetIdentity(text);
    taken = taken || KindOfPath(layout_.Chain(chain.name)) != PathKind::kMissing;
    report.chains.push_back(std::move(chain));
  }
  TESSERA_ASSIGN_OR_RETURN(report.weight_bytes, BytesInAll(options, model));
  TESSERA_ASSIGN_OR_RETURN(const FileLock lock,
                           LockForWriting(absl::StrCat("synthesise ", options.name)));
  SynthStore store(options, model, report.weight_bytes);
  const auto fill = [&](ObjectWriter* writer) -> Status {
    for (size_t variant = 0; variant < report.chains.size(); ++variant) {
      TESSERA_ASSIGN_OR_RETURN(report.chains[variant].blocks, store.Store(variant, writer));
    }
    return absl::OkStatus();
  };
  if (taken) {
    // A taken name is settled before anything is written.
    TESSERA_RETURN_IF_ERROR(fill(nullptr));
    for (const ChainManifest& chain : report.chains) {
      TESSERA_RETURN_IF_ERROR(CheckExisting(chain, options.existing).status());
    }
  }
  ObjectWriter writer(layout_, disk_);
  for (const auto& [name, text] : assets) {
    TESSERA_RETURN_IF_ERROR(writer.Put(ObjectKind::kAsset, AssetIdentity(text), BytesOf(text)));
  }
  TESSERA_RETURN_IF_ERROR(fill(&writer));
  TESSERA_RETURN_IF_ERROR(writer.Commit());
  for (const ChainManifest& chain : report.chains) {
    TESSERA_ASSIGN_OR_RETURN(const NameState state, CheckExisting(chain, options.existing));
    if (state != NameState::kSame) TESSERA_RETURN_IF_ERROR(WriteChain(chain));
  }
  report.new_bytes = writer.new_bytes();
  report.new_objects = writer.new_objects();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace tessera::blockzoo
