// What architectures make of settings and tensors that a file claims: a GGUF file, or the text of a
// config.json whose model has no tensors.
#include <cstddef>
#include <cstdint>
#include <string>

#include "blockzoo/import/architecture.h"
#include "blockzoo/import/gguf_metadata.h"
#include "blockzoo/import/gguf_reader.h"
#include "blockzoo/import/huggingface_metadata.h"

namespace tessera::blockzoo {
namespace {

class FuzzedCheckpoint final : public Checkpoint {
 public:
  FuzzedCheckpoint(std::string format, Attributes settings, GgufFile file)
      : format_(std::move(format)), settings_(std::move(settings)), file_(std::move(file)) {}

  std::string format() const override { return format_; }
  StatusOr<std::string> architecture() const override {
    return settings_.Text(format_ == "gguf" ? "general.architecture" : "architectures.0");
  }
  StatusOr<CheckpointTensor> Tensor(absl::string_view name) const override {
    const auto found = file_.tensors.find(std::string_view(name.data(), name.size()));
    if (found == file_.tensors.end()) return absl::NotFoundError(name);
    return found->second;
  }
  std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : file_.tensors) names.push_back(name);
    return names;
  }
  const Attributes& settings() const override { return settings_; }
  StatusOr<std::map<std::string, std::string>> Assets() const override {
    return std::map<std::string, std::string>();
  }
  StatusOr<std::vector<CheckpointFile>> Files() const override {
    return std::vector<CheckpointFile>();
  }
  StatusOr<std::vector<uint32_t>> EndTokenIds() const override { return std::vector<uint32_t>(); }

 private:
  std::string format_;
  Attributes settings_;
  GgufFile file_;
};

void Cut(const FuzzedCheckpoint& checkpoint) {
  const StatusOr<Architecture> architecture = FindArchitecture(checkpoint);
  if (architecture.ok()) static_cast<void>(architecture->cut(checkpoint));
}

}  // namespace
}  // namespace tessera::blockzoo

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera::blockzoo;
  auto file = ParseGguf(std::as_bytes(std::span(data, size)));
  if (file.ok()) {
    tessera::blockzoo::Attributes settings = GgufSettings(*file);
    Cut(FuzzedCheckpoint("gguf", std::move(settings), *std::move(file)));
    return 0;
  }
  auto settings = HuggingFaceSettings(absl::string_view(reinterpret_cast<const char*>(data), size));
  if (settings.ok()) Cut(FuzzedCheckpoint("huggingface", *std::move(settings), {}));
  return 0;
}
