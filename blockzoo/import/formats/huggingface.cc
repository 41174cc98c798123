// Hugging Face directories: config.json, safetensors in one file or in shards, tokenizer files.
#include <memory>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/import/format.h"
#include "blockzoo/import/huggingface_metadata.h"
#include "blockzoo/import/quantization.h"
#include "blockzoo/import/safetensors_reader.h"
#include "blockzoo/zoo_io.h"
#include "blockzoo/zoo_mapping.h"

namespace tessera::blockzoo {
namespace {

constexpr uint64_t kMaxConfigBytes = 16 << 20;
constexpr uint64_t kMaxIndexBytes = 64 << 20;

class HuggingFaceCheckpoint final : public Checkpoint {
 public:
  static StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory) {
    auto checkpoint = std::make_unique<HuggingFaceCheckpoint>();
    checkpoint->directory_ = directory;
    TESSERA_ASSIGN_OR_RETURN(const std::string config,
                             ReadWholeFile(directory + "/config.json", kMaxConfigBytes));
    TESSERA_ASSIGN_OR_RETURN(checkpoint->settings_, HuggingFaceSettings(config));
    TESSERA_RETURN_IF_ERROR(checkpoint->OpenWeights());
    TESSERA_RETURN_IF_ERROR(checkpoint->MapCompanions());
    TESSERA_RETURN_IF_ERROR(checkpoint->PresentQuantized());
    return std::unique_ptr<Checkpoint>(std::move(checkpoint));
  }

  [[nodiscard]] std::string format() const override { return "huggingface"; }

  [[nodiscard]] StatusOr<std::string> architecture() const override {
    StatusOr<std::string> name = settings_.Text("architectures.0");
    return name.ok() ? name : settings_.Text("model_type");
  }

  [[nodiscard]] StatusOr<CheckpointTensor> Tensor(absl::string_view name) const override {
    const std::string key(name);
    if (const auto found = model_.find(key); found != model_.end()) return found->second;
    if (const auto found = file_.find(key); found != file_.end()) return AsWeight(found->second);
    return Error(absl::StatusCode::kNotFound,
                 {.what = absl::StrCat("the model has no tensor ", name)});
  }

  [[nodiscard]] std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : file_) names.push_back(name);
    for (const auto& [name, tensor] : model_) names.push_back(name);
    return names;
  }

  [[nodiscard]] const Attributes& settings() const override { return settings_; }

  [[nodiscard]] StatusOr<std::map<std::string, std::string>> Assets() const override {
    return HuggingFaceAssets(directory_);
  }

  [[nodiscard]] StatusOr<std::vector<CheckpointFile>> Files() const override { return files_; }

  [[nodiscard]] StatusOr<std::vector<uint32_t>> EndTokenIds() const override {
    TESSERA_ASSIGN_OR_RETURN(const auto assets, HuggingFaceAssets(directory_));
    return HuggingFaceEndTokenIds(settings_, assets);
  }

 private:
  Status OpenWeights() {
    if (KindOfPath(directory_ + "/model.safetensors") == PathKind::kFile) {
      return OpenShard("model.safetensors");
    }
    const std::string index = directory_ + "/model.safetensors.index.json";
    if (KindOfPath(index) != PathKind::kFile) {
      return Error(absl::StatusCode::kNotFound,
                   {.what = "the directory has no weights",
                    .where = directory_,
                    .why = "neither model.safetensors nor model.safetensors.index.json is there",
                    .fix = "fetch the safetensors files into it"});
    }
    TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(index, kMaxIndexBytes));
    TESSERA_ASSIGN_OR_RETURN(const auto shard_of, ParseShardIndex(text));
    std::set<std::string> shards;
    for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
    for (const std::string& shard : shards) TESSERA_RETURN_IF_ERROR(OpenShard(shard));
    for (const auto& [tensor, shard] : shard_of) {
      if (file_.contains(tensor)) continue;
      return Error(absl::StatusCode::kInvalidArgument,
                   {.what = absl::StrCat("the tensor ", tensor, " is missing"),
                    .where = absl::StrCat(directory_, "/", shard),
                    .why = "the index names it there",
                    .fix = "fetch the shards again"});
    }
    return absl::OkStatus();
  }

  Status OpenShard(const std::string& name) {
    const std::string path = absl::StrCat(directory_, "/", name);
    TESSERA_ASSIGN_OR_RETURN(auto mapping, MappedFile::Open(path));
    StatusOr<std::vector<SafetensorsTensor>> tensors = ParseSafetensors(mapping->bytes());
    if (!tensors.ok()) return Annotate(tensors.status(), path);
    files_.push_back({name, mapping->bytes()});
    mappings_.push_back(std::move(mapping));
    for (SafetensorsTensor& tensor : *tensors) {
      const std::string tensor_name = tensor.name;
      if (!file_.emplace(tensor_name, std::move(tensor)).second) {
        return Error(
            absl::StatusCode::kInvalidArgument,
            {.what = absl::StrCat("the tensor ", tensor_name, " is in two shards"), .where = path});
      }
    }
    return absl::OkStatus();
  }

  // Settings, tokenizer and notes beside the weights.
  Status MapCompanions() {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory_));
    for (const std::string& name : names) {
      const std::string path = absl::StrCat(directory_, "/", name);
      if (!IsCompanionName(name) || KindOfPath(path) != PathKind::kFile) continue;
      TESSERA_ASSIGN_OR_RETURN(auto mapping, MappedFile::Open(path));
      files_.push_back({name, mapping->bytes()});
      mappings_.push_back(std::move(mapping));
    }
    return absl::OkStatus();
  }

  // Afterwards the settings are those of the unquantized model.
  Status PresentQuantized() {
    constexpr const char* kMethod = "quantization_config.quant_method";
    if (!settings_.Has(kMethod)) return absl::OkStatus();
    TESSERA_ASSIGN_OR_RETURN(const std::string method, settings_.Text(kMethod));
    TESSERA_ASSIGN_OR_RETURN(const Quantization quantization, FindQuantization(method));
    const Status status = quantization.present(settings_, file_, model_);
    if (!status.ok()) return Annotate(status, directory_);
    Attributes rest;
    for (const auto& [name, value] : settings_.values()) {
      if (!absl::StartsWith(name, "quantization_config.")) rest.Set(name, value);
    }
    settings_ = std::move(rest);
    return absl::OkStatus();
  }

  std::string directory_;
  Attributes settings_;
  std::vector<std::shared_ptr<const MappedFile>> mappings_;
  std::vector<CheckpointFile> files_;
  FileTensors file_;    // as stored, without those of quantized weights
  ModelTensors model_;  // quantized weights
};

bool IsHuggingFace(const std::string& path) {
  return KindOfPath(path) == PathKind::kDirectory &&
         KindOfPath(path + "/config.json") == PathKind::kFile && !HasOnlyPickledWeights(path);
}

}  // namespace

void Register_huggingface(FormatRegistry& registry) {
  registry.Add(
      {.name = "huggingface", .recognises = IsHuggingFace, .open = HuggingFaceCheckpoint::Open});
}

}  // namespace tessera::blockzoo
