// The rotary settings of a checkpoint, in every spelling.
#pragma once

#include <string>

#include "blockzoo/import/settings_reader.h"
#include "blockzoo/import/tensor_taker.h"

namespace tessera::blockzoo {

struct RotaryQuery {
  int64_t head_dim = 0;
  int64_t max_context = 0;
  double base = 10000.0;  // when the file has none
  double partial = 1.0;   // part of a head that is rotated, when the file has none
  Key base_key = {"rope.freq_base", "rotary_emb_base|rope_theta"};
  // Whether a scaling that is not said to be of `group` applies.
  enum class Scaling : uint8_t { kRead, kNone } scaling = Scaling::kRead;
  // Hugging Face's part of rope_parameters for one type of layer ("full_attention"); empty where
  // all layers are alike.
  std::string group;
};

// UNIMPLEMENTED naming a scaling that no block computes, INVALID_ARGUMENT with the setting.
[[nodiscard]] StatusOr<RotarySettings> ReadRotary(const RotaryQuery& query, SettingsReader& read,
                                                  TensorTaker& taker);

}  // namespace tessera::blockzoo
