// GGUF files, versions 2 and 3.
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/import/format.h"
#include "blockzoo/import/gguf_metadata.h"
#include "blockzoo/zoo_io.h"
#include "blockzoo/zoo_mapping.h"

namespace tessera::blockzoo {
namespace {

class GgufCheckpoint final : public Checkpoint {
 public:
  GgufCheckpoint(std::shared_ptr<const MappedFile> mapping, GgufFile file)
      : mapping_(std::move(mapping)), file_(std::move(file)), settings_(GgufSettings(file_)) {}

  [[nodiscard]] std::string format() const override { return "gguf"; }

  [[nodiscard]] StatusOr<std::string> architecture() const override {
    return settings_.Text("general.architecture");
  }

  [[nodiscard]] StatusOr<CheckpointTensor> Tensor(absl::string_view name) const override {
    const auto found = file_.tensors.find(std::string_view(name.data(), name.size()));
    if (found != file_.tensors.end()) return found->second;
    return Error(absl::StatusCode::kNotFound,
                 {.what = absl::StrCat("the file has no tensor ", name)});
  }

  [[nodiscard]] std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : file_.tensors) names.push_back(name);
    return names;
  }

  [[nodiscard]] const Attributes& settings() const override { return settings_; }

  [[nodiscard]] StatusOr<std::map<std::string, std::string>> Assets() const override {
    std::map<std::string, std::string> assets;
    TESSERA_ASSIGN_OR_RETURN(std::string vocabulary, GgufVocabularyJson(file_));
    if (!vocabulary.empty()) assets["gguf_vocabulary.json"] = std::move(vocabulary);
    TESSERA_ASSIGN_OR_RETURN(std::string chat_template, GgufChatTemplate(file_));
    if (!chat_template.empty()) assets["chat_template"] = std::move(chat_template);
    return assets;
  }

  [[nodiscard]] StatusOr<std::vector<uint32_t>> EndTokenIds() const override {
    return GgufEndTokenIds(file_);
  }

 private:
  std::shared_ptr<const MappedFile> mapping_;
  GgufFile file_;
  Attributes settings_;
};

bool IsGguf(const std::string& path) {
  if (KindOfPath(path) != PathKind::kFile) return false;
  if (absl::EndsWith(path, ".gguf")) return true;
  const StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
  return file.ok() && (*file)->bytes().size() >= 4 &&
         absl::string_view(reinterpret_cast<const char*>((*file)->bytes().data()), 4) == "GGUF";
}

StatusOr<std::unique_ptr<Checkpoint>> OpenGguf(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(auto mapping, MappedFile::Open(path));
  StatusOr<GgufFile> file = ParseGguf(mapping->bytes());
  if (!file.ok()) return Annotate(file.status(), path);
  return std::make_unique<GgufCheckpoint>(std::move(mapping), *std::move(file));
}

}  // namespace

void Register_gguf(FormatRegistry& registry) {
  registry.Add({.name = "gguf", .recognises = IsGguf, .open = OpenGguf});
}

}  // namespace tessera::blockzoo
