// Decoders of the usual form: an embedding, layers of attention and feed-forward blocks, a head. An
// architecture fills a `Decoder` from the checkpoint's settings, says where its file names differ
// from the usual ones, and has it cut.
//
//   TensorTaker taker(checkpoint);
//   SettingsReader read(checkpoint);
//   TESSERA_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(kKind, read, taker));
//   …what differs…
//   return CutDecoder(decoder, read, taker);
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "blockzoo/import/architecture.h"
#include "blockzoo/import/settings_reader.h"
#include "blockzoo/import/tensor_taker.h"

namespace tessera::blockzoo {

// Limits of every decoder's settings.
inline constexpr int64_t kMaxLayers = 4096;
inline constexpr int64_t kMaxWidth = 1 << 20;
inline constexpr int64_t kMaxHeads = 4096;
inline constexpr int64_t kMaxHeadDim = 4096;
inline constexpr int64_t kMaxVocab = 1 << 24;
inline constexpr int64_t kMaxContext = (int64_t{1} << 31) - 1;

struct DecoderShape {
  int64_t layers = 0;
  int64_t width = 0;
  int64_t hidden = 0;
  int64_t vocab = 0;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_context = 0;  // tokens

  [[nodiscard]] int64_t q_width() const { return q_heads * head_dim; }
  [[nodiscard]] int64_t kv_width() const { return kv_heads * head_dim; }
};

// How a file's tensor becomes the role's.
enum class TensorForm : uint8_t {
  kAsIs,
  kPlusOne,     // 1 + w, in float32
  kTransposed,  // [in, out] in the file
  kByHead,      // several roles of equal width, the rows of each head next to each other
  kStacked,     // several tensors one after the other
};

// A module of the file: "NAME.weight" and, where the block has a role for it, an optional
// "NAME.bias". `roles` is one role, or several joined by commas whose rows follow each other
// ("q,k,v"). A bias has the role "ROLE_bias"; that of the head is "bias". A name that ends in
// ".weight" or ".bias" is one tensor alone.
struct TensorRule {
  std::string roles;
  std::string name;
  TensorForm form = TensorForm::kAsIs;
  uint64_t count = 0;  // tensors that make up kStacked; '*' in the name is the index
};
using TensorRules = std::vector<TensorRule>;

// The rule whose roles are `roles` gets another name, or is added.
void Rename(TensorRules& rules, absl::string_view roles, absl::string_view name,
            TensorForm form = TensorForm::kAsIs);
void Remove(TensorRules& rules, absl::string_view roles);

struct DecoderNames {
  TensorRules embedding, head;  // whole names
  TensorRules attention, ffn;   // names under `layer` + index + "."
  std::string layer;
};
// Those of llama.cpp's converter and of Hugging Face's Llama.
[[nodiscard]] DecoderNames UsualNames(const SettingsReader& read);

// A block to be cut.
struct BlockSpec {
  std::string type;
  Attributes attributes;
  std::map<std::string, Shape> shapes;  // of each role that the block may have
  TensorRules tensors;
  std::string prefix;      // of the tensors' names
  uint64_t head_rows = 0;  // of a head, for TensorForm::kByHead
  // Takes what no rule describes, after the rules.
  std::function<Status(TensorTaker&, BlockPlan&)> take_more;
};

struct LayerAttention {
  // What the settings call the layer; a local one has a window, unless it hides nothing.
  enum class Kind : uint8_t { kGlobal, kLocal } kind = Kind::kGlobal;
  int64_t window = 0;  // tokens; 0: all
  int64_t rotary = 0;  // index into Decoder::rotary; kNoRotary: positions are not rotated
};
inline constexpr int64_t kNoRotary = -1;

struct Decoder {
  std::string architecture;
  DecoderShape shape;
  DecoderNames names;
  double epsilon = 0;
  std::string norm = "rms";
  std::string activation = "silu";
  std::string rope_style;
  std::vector<RotarySettings> rotary;  // empty: no layer rotates
  enum class Head : uint8_t { kOwn, kTied } head = Head::kOwn;
  enum class Residual : uint8_t { kSequential, kParallel } residual = Residual::kSequential;
  // Attributes beside those that follow from the fields above.
  Attributes embedding_attributes, attention_attributes, ffn_attributes, head_attributes;
  std::vector<LayerAttention> layers;  // empty: no windows, all layers use rotary[0]
  // The blocks of one layer; the usual ones when not set.
  std::function<StatusOr<std::vector<BlockSpec>>(const Decoder&, int64_t layer)> blocks_of_layer;
};

// What a config.json may leave out: the values of the family's own code.
struct DecoderDefaults {
  int64_t q_heads = 0;        // 0: they must be there
  int64_t kv_heads = 0;       // 0: as many as query heads
  int64_t head_dim = 0;       // 0: the width divided by the heads
  int64_t hidden_widths = 0;  // the hidden size in widths; 0: it must be there
  int64_t vocab = 0;          // 0: it must be there
  int64_t max_context = 2048;
  double epsilon = 1e-6;
  enum class Rotation : uint8_t { kRotary, kNone } rotation = Rotation::kRotary;
  // kOther: the architecture reads the size of a head's key and value.
  enum class Heads : uint8_t { kEqual, kOther } heads = Heads::kEqual;
  double rope_base = 10000.0;
  double partial_rotary = 1.0;
  const char* rotary_group = "";  // RotaryQuery::group
  Decoder::Head head = Decoder::Head::kOwn;
  const char* activation = "silu";
};

// How an architecture's files are read.
struct DecoderKind {
  const char* architecture = "";
  // "interleaved" where pairs of neighbours rotate: GGUF files of the families whose q and k the
  // converter permutes.
  const char* gguf_rope_style = "half";
  const char* huggingface_rope_style = "half";
  const char* norm = "rms";
  DecoderDefaults defaults;
  // Names that differ from the usual ones.
  void (*rename)(const SettingsReader& read, DecoderNames& names) = nullptr;
};
// Everything but attributes, layers and residual, which the architecture adds. One rotary setting,
// unless the defaults say that there is none.
[[nodiscard]] StatusOr<Decoder> ReadDecoder(const DecoderKind& kind, SettingsReader& read,
                                            TensorTaker& taker);

// The name of `activation` in a block ("silu", "gelu", "gelu_tanh", "relu", "relu2").
[[nodiscard]] StatusOr<std::string> ActivationName(absl::string_view activation,
                                                   absl::string_view setting);

// The usual blocks of a layer.
[[nodiscard]] BlockSpec AttentionSpec(const Decoder& decoder, int64_t layer);
[[nodiscard]] BlockSpec FfnSpec(const Decoder& decoder, int64_t layer);

// INVALID_ARGUMENT when head counts and sizes do not go together.
[[nodiscard]] Status CheckHeads(const Decoder& decoder);
// Takes the block's tensors. NOT_FOUND or INVALID_ARGUMENT naming the tensor.
[[nodiscard]] StatusOr<BlockPlan> CutBlock(const BlockSpec& spec, TensorTaker& taker);
// The whole chain. Every tensor must be taken or ignored, every setting with an effect read.
[[nodiscard]] StatusOr<ChainPlan> CutDecoder(const Decoder& decoder, const SettingsReader& read,
                                             TensorTaker& taker);

}  // namespace tessera::blockzoo
