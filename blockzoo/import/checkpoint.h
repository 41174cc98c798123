// A checkpoint opened for import, whatever its format: named tensors, settings and asset files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "blockzoo/manifest.h"
#include "config/foundation/status.h"

namespace tessera::blockzoo {

struct CheckpointTensor {
  std::string name;  // as in the file, or what its parts stand for
  kernels::DType dtype = kernels::DType::kF32;
  Shape shape;  // slowest dimension first, whatever the file's order
  // The canonical bytes, in the mapped file and checked against its size; empty where `make` is
  // set.
  std::span<const std::byte> bytes;
  // Set where the file keeps the tensor in another form: writes the canonical bytes, all
  // TensorBytes(dtype, shape) of them, into zeroed memory. Any thread, while the checkpoint lives.
  std::function<Status(std::span<std::byte> canonical)> make = nullptr;
  // What of the file the made bytes hold, so that an export can give it back.
  struct Origin {
    std::span<const std::byte> file_bytes;
    uint64_t offset = 0;      // of the same bytes in what `make` writes
    std::string arrangement;  // how the file's differ (code_arrangement.h); empty: not at all
  };
  std::vector<Origin> origins = {};
};

// Rows [begin, begin + count) of a tensor with two or more dimensions, named `name`. UNIMPLEMENTED
// when `begin` cuts a scale that rows share.
[[nodiscard]] StatusOr<CheckpointTensor> RowsOf(const CheckpointTensor& tensor, std::string name,
                                                uint64_t begin, uint64_t count);

// A file of the checkpoint, as an export gives it back.
struct CheckpointFile {
  std::string name;  // a plain name
  std::span<const std::byte> bytes;
};

// Read-only, thread-safe; owns the mapped files.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  [[nodiscard]] virtual std::string format() const = 0;  // "gguf", "huggingface"
  // The architecture's name as the file says it ("llama", "LlamaForCausalLM").
  [[nodiscard]] virtual StatusOr<std::string> architecture() const = 0;
  // NOT_FOUND with the tensor's name when it is missing.
  [[nodiscard]] virtual StatusOr<CheckpointTensor> Tensor(absl::string_view name) const = 0;
  [[nodiscard]] virtual std::vector<std::string> TensorNames() const = 0;
  // Settings of the file: GGUF keys ("llama.block_count"), or config.json's fields with nested ones
  // joined by dots ("rope_scaling.factor").
  [[nodiscard]] virtual const Attributes& settings() const = 0;
  // Asset files by the names of ChainManifest::assets.
  [[nodiscard]] virtual StatusOr<std::map<std::string, std::string>> Assets() const = 0;
  // Everything that was imported or goes with it, mapped.
  [[nodiscard]] virtual StatusOr<std::vector<CheckpointFile>> Files() const = 0;
  // Every id that ends a generation, from what the format knows.
  [[nodiscard]] virtual StatusOr<std::vector<uint32_t>> EndTokenIds() const = 0;
};

}  // namespace tessera::blockzoo
