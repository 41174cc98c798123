// What the zoo stores besides weight bytes: tensors, blocks and chains by content.
//
// Identities: a tensor is the SHA-256 of its canonical form (dtype name, shape, then the bytes,
// row-major as GGUF and safetensors both lay them out); a block is the SHA-256 of its canonical
// manifest text; a chain manifest names blocks in order.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "blockzoo/attributes.h"
#include "config/foundation/digest.h"
#include "config/foundation/status.h"
#include "kernels/dtype.h"

namespace tessera::blockzoo {

// Slowest dimension first: a Linear weight is [out, in]. 1 to 4 dimensions, each 1..2^31-1.
using Shape = std::vector<uint64_t>;

struct TensorRef {
  std::string role;  // what it is to its block: "q", "norm", "gate", "table", …
  Digest tensor;
  kernels::DType dtype = kernels::DType::kF32;
  Shape shape;

  bool operator==(const TensorRef&) const = default;
};

struct BlockManifest {
  std::string type;  // a word of the block type table: "embedding", "attention", "ffn", "lm_head"
  Attributes attributes;
  std::vector<TensorRef> tensors;  // sorted by role, unique

  [[nodiscard]] const TensorRef* Find(absl::string_view role) const;
  bool operator==(const BlockManifest&) const = default;
};

// How positions rotate queries and keys; a chain has one or more, blocks name theirs by index. What
// each scaling reads and computes is said in rotary.h; fields that it does not read stay as they
// are here.
struct RotarySettings {
  uint32_t dim = 0;  // rotated elements of a head; even
  double base = 10000.0;
  // "none" or empty, "linear", "ntk", "dynamic", "yarn", "longrope" or "llama3".
  std::string scaling;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  uint64_t original_context = 0;  // tokens the model was trained with
  // GGUF's rope_freqs.weight: divides each of the dim / 2 frequencies; empty: none.
  std::vector<double> frequency_factors;
  // Multiplies cosine and sine; 0: what the scaling itself says, else 1.
  double attention_factor = 0.0;
  double beta_fast = 32.0;                        // yarn
  double beta_slow = 1.0;                         // yarn
  double mscale = 0.0;                            // yarn; 0: not given
  double mscale_all_dim = 0.0;                    // yarn; 0: not given
  bool truncate = true;                           // yarn: whole correction dimensions
  std::vector<double> short_factor, long_factor;  // longrope: dim / 2 each
  // Tokens for which longrope and dynamic choose; 0: the chain's max_context.
  uint64_t length = 0;

  bool operator==(const RotarySettings&) const = default;
};

struct ChainManifest {
  std::string name;
  std::string architecture;    // "llama", as imported; for people
  std::vector<Digest> blocks;  // from the embedding to the lm_head
  std::vector<RotarySettings> rotary;
  uint64_t width = 0;  // of the residual stream
  uint64_t vocab = 0;
  uint64_t max_context = 0;             // tokens
  std::vector<uint32_t> end_token_ids;  // every id that ends a generation
  // Tokenizer, template and settings files by name: "tokenizer.json", "tokenizer.model",
  // "tokenizer_config.json", "generation_config.json", "gguf_vocabulary.json",
  // "byte_vocabulary.json", "chat_template".
  std::map<std::string, Digest> assets;
  std::map<std::string, std::string> provenance;  // source file, format, licence, importer version
  // What an export needs to give the imported files back, as assets (export/source_record.h);
  // empty: the chain was not imported, or not with all of its files.
  std::map<std::string, Digest> source;

  bool operator==(const ChainManifest&) const = default;
};

// Bytes of a tensor's canonical form; INVALID_ARGUMENT when the shape breaks the rules of `Shape`,
// does not fill whole element blocks, or overflows, when a type with planes (kernels/
// weight_planes.h) has other than two dimensions, and for types that no weight has.
[[nodiscard]] StatusOr<uint64_t> TensorBytes(kernels::DType dtype, const Shape& shape);
// "[2048, 576]".
[[nodiscard]] std::string ShapeText(const Shape& shape);

// The canonical text: JSON with sorted keys and no spaces. What is hashed and stored.
[[nodiscard]] std::string CanonicalText(const BlockManifest& manifest);
[[nodiscard]] std::string CanonicalText(const ChainManifest& manifest);
// INVALID_ARGUMENT with the field and the reason.
[[nodiscard]] StatusOr<BlockManifest> ParseBlockManifest(absl::string_view text);
[[nodiscard]] StatusOr<ChainManifest> ParseChainManifest(absl::string_view text);

[[nodiscard]] Digest IdentityOf(const BlockManifest& manifest);
// A chain's revision: everything that decides what is served, so all but its name, provenance and
// source.
[[nodiscard]] Digest RevisionOf(const ChainManifest& manifest);
[[nodiscard]] Digest TensorIdentity(kernels::DType dtype, const Shape& shape,
                                    std::span<const uint8_t> bytes);

}  // namespace tessera::blockzoo
