// Mixtures of experts in the spellings of the hub and of llama.cpp's converter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {

// Names under the layer's prefix. Of what every expert has: one name for all, whose tensor is
// [experts, out, in], or a name with a '*' in place of the expert's number.
struct MixtureNames {
  std::string router;
  std::string gate, up, down;
  std::string gate_up;  // of all experts, [experts, 2 * hidden, width]; used where it is there
  std::string selection_bias;  // whole; empty: none
  std::string shared_gate, shared_up, shared_down;
  std::string shared_gate_weight;  // empty: none
};

struct Mixture {
  int64_t experts = 0;
  int64_t used = 0;
  int64_t hidden = 0;         // of an expert
  int64_t shared_hidden = 0;  // of the shared experts together; 0: none
  std::string score = "softmax";
  enum class Weights : uint8_t { kScores, kNormalised } weights = Weights::kScores;
  double scale = 1.0;
  int64_t groups = 1;
  int64_t groups_used = 1;
  std::string group_score = "max";
  MixtureNames names;
};

// Numbers and sizes of experts, and the usual names. An expert of a family whose settings have no
// size of its own is as large as the dense feed-forward block.
[[nodiscard]] StatusOr<Mixture> ReadMixture(const Decoder& decoder, SettingsReader& read);
// Sets Mixture::weights by `norm_topk_prob`; what GGUF files do not say is `gguf`.
[[nodiscard]] Status ReadNormalisation(Mixture::Weights gguf, SettingsReader& read,
                                       Mixture& mixture);

// The mixture in place of a layer's feed-forward block.
[[nodiscard]] BlockSpec MixtureSpec(const Decoder& decoder, const Mixture& mixture, int64_t layer);

// The layers with a mixture, of families that say so by a step and by exceptions.
[[nodiscard]] StatusOr<std::vector<bool>> ReadSparseLayers(SettingsReader& read, int64_t layers);
// Gives those layers `mixture` in place of the usual feed-forward block.
void UseMixture(const Mixture& mixture, std::vector<bool> sparse, Decoder& decoder);

// Takes [parts * out, in] for `role` from what `name` names (see MixtureNames), and its optional
// bias [parts * out] for ROLE_bias.
[[nodiscard]] Status TakeStacked(TensorTaker& taker, BlockPlan& block, const std::string& role,
                                 const std::string& name, uint64_t parts, uint64_t out,
                                 uint64_t in);

}  // namespace tessera::blockzoo
