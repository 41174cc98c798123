// What the zoo's operations tell, as values; zoo_report.h renders them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blockzoo/manifest.h"

namespace tessera::blockzoo {

struct ImportReport {
  ChainManifest chain;
  enum class Outcome : uint8_t { kAdded, kReplaced, kAlreadyThere };
  Outcome outcome = Outcome::kAdded;
  uint64_t tensor_bytes = 0;  // of the checkpoint
  uint64_t new_bytes = 0;     // written to the zoo
  uint64_t new_objects = 0;
  uint64_t shared_bytes = 0;  // were there already
  double seconds = 0;
};

struct ExportReport {
  std::string path;
  std::string format;              // "gguf", "huggingface"
  std::vector<std::string> files;  // at `path`, when it is a directory
  uint64_t bytes = 0;
  double seconds = 0;
};

struct SynthReport {
  std::vector<ChainManifest> chains;
  uint64_t weight_bytes = 0;  // of their distinct tensors
  uint64_t new_bytes = 0;     // written to the zoo
  uint64_t new_objects = 0;
  double seconds = 0;
};

struct QuantizeReport {
  ChainManifest chain;
  uint64_t tensors = 0;       // that have another type now
  double mean_error = 0;      // of |w' - w| / |w|, over those tensors
  double worst_error = 0;     // of one of them
  std::string worst_tensor;   // "block 4 (ffn) down"
  uint64_t source_bytes = 0;  // of the source's distinct tensors
  uint64_t bytes = 0;         // of the new chain's
  uint64_t new_bytes = 0;     // written to the zoo
  // Tensors whose rows have no whole blocks of the asked type, and what they became instead.
  uint64_t fallback_tensors = 0;
  std::string fallback_type;
  double seconds = 0;
};

struct ChainSummary {
  std::string name;
  std::string architecture;
  uint64_t blocks = 0;
  uint64_t parameters = 0;
  uint64_t weight_bytes = 0;  // distinct tensors of the chain
  uint64_t unique_bytes = 0;  // of them, those that no other chain uses
  uint64_t made_bytes = 0;    // of them, those of synthetic tensors, which are made at load
  std::string problem;        // why it cannot be read; empty: it can
};

struct ZooListing {
  std::string directory;
  std::vector<ChainSummary> chains;  // by name
  uint64_t summed_bytes = 0;         // of weight_bytes
  uint64_t distinct_bytes = 0;       // of all chains together, each tensor once
  uint64_t made_bytes = 0;           // of them, those of synthetic tensors
};

struct BlockDetails {
  Digest block;
  BlockManifest manifest;
  uint64_t bytes = 0;
  uint64_t used_by_chains = 0;  // of the zoo, this one included
};

struct ChainDetails {
  ChainManifest chain;
  Digest revision;
  ChainSummary summary;
  std::vector<BlockDetails> blocks;  // in chain order
};

struct DiffLine {
  enum class Kind : uint8_t { kChanged, kOnlyInA, kOnlyInB };
  Kind kind = Kind::kChanged;
  uint64_t position = 0;
  std::string type;
  std::vector<std::string> what;  // "q: F16 [64, 64] / Q8_0 [64, 64]", "norm: other bytes", …
};

struct ChainDiff {
  std::string a;
  std::string b;
  std::vector<DiffLine> blocks;       // positions that differ
  std::vector<std::string> settings;  // rotary, tokenizer, template, end ids …
  uint64_t equal_blocks = 0;          // at equal positions
  uint64_t shared_bytes = 0;          // distinct tensors of both
  uint64_t only_a_bytes = 0;
  uint64_t only_b_bytes = 0;
};

struct VerifyReport {
  uint64_t chains = 0;
  uint64_t blocks = 0;
  uint64_t tensors = 0;
  uint64_t recipes = 0;  // of synthetic tensors
  uint64_t assets = 0;
  uint64_t derived = 0;
  uint64_t bytes = 0;                 // read and hashed
  uint64_t unreferenced = 0;          // objects that gc would remove
  std::vector<std::string> problems;  // empty: the zoo is sound
};

struct GcReport {
  uint64_t objects = 0;  // removed (or to be removed by a dry run)
  uint64_t derived = 0;
  uint64_t freed_bytes = 0;
  uint64_t kept_objects = 0;
  uint64_t stale_pins = 0;
  std::vector<std::string> pinned_chains;  // of live daemons
};

}  // namespace tessera::blockzoo
