// The table of architectures: one file each under import/architectures/, which cuts a checkpoint
// into blocks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "blockzoo/import/checkpoint.h"
#include "blockzoo/manifest.h"

namespace tessera::blockzoo {

// A block before its tensors are hashed: roles and the checkpoint tensors that fill them.
struct BlockPlan {
  std::string type;
  Attributes attributes;
  struct Part {
    std::string role;
    CheckpointTensor tensor;
  };
  std::vector<Part> tensors;
};

// A chain before its blocks are stored. `chain.blocks`, `chain.assets` and `chain.name` are filled
// by the importer.
struct ChainPlan {
  ChainManifest chain;
  std::vector<BlockPlan> blocks;  // in chain order
};

struct Architecture {
  const char* name = "";
  std::vector<std::string> aliases;  // names in files: "llama", "LlamaForCausalLM"
  // Which checkpoints of a shared name are this architecture's; null: those that no other claims.
  bool (*claims)(const Checkpoint& checkpoint) = nullptr;
  // Cuts the checkpoint; every tensor of the file must be used or knowingly ignored, else
  // INVALID_ARGUMENT names the ones left over.
  StatusOr<ChainPlan> (*cut)(const Checkpoint& checkpoint) = nullptr;
};

class ArchitectureRegistry {
 public:
  void Add(const Architecture& architecture) { architectures_.push_back(architecture); }
  [[nodiscard]] const std::vector<Architecture>& architectures() const { return architectures_; }

 private:
  std::vector<Architecture> architectures_;
};

// Generated: calls Register_<file> of each file in import/architectures/.
void RegisterArchitectures(ArchitectureRegistry& registry);

// The architecture that the checkpoint names. UNIMPLEMENTED naming it and the known ones when there
// is no entry.
[[nodiscard]] StatusOr<Architecture> FindArchitecture(const Checkpoint& checkpoint);

}  // namespace tessera::blockzoo
