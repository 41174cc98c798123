// Weights with planes (kernels/weight_planes.h) out of the tensors that quantized Hugging Face
// checkpoints keep: the same codes, and scales and zero points of the same values, so nothing is
// lost. Errors name the file's tensor.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "blockzoo/import/quantization.h"

namespace tessera::blockzoo {

// UNIMPLEMENTED "WHAT is not supported" with the way around it.
[[nodiscard]] Status UnsupportedLayout(absl::string_view what, absl::string_view where,
                                       absl::string_view why);
// The entry, which leaves `file`; nullopt when there is none.
[[nodiscard]] std::optional<SafetensorsTensor> TakeFrom(FileTensors& file, const std::string& name);
// The names of `file` that end with `suffix`, without it.
[[nodiscard]] std::vector<std::string> PrefixesOf(const FileTensors& file,
                                                  absl::string_view suffix);
// Drops what belongs to activations or to keys and values: nothing that is stored depends on it.
void DropActivationScales(FileTensors& file);

// `codes` F8_E4M3 or I8 [out, in]; `scales` of one element, [out], [out, 1], or for e4m3
// [ceil(out / 128), ceil(in / 128)]. Made only when the scales are finite and no e4m3 code is not a
// number.
[[nodiscard]] StatusOr<CheckpointTensor> ByteWeight(const std::string& name,
                                                    const SafetensorsTensor& codes,
                                                    const SafetensorsTensor& scales);

// Where the eight zero points of a 32-bit word belong.
enum class ZeroWords : uint8_t {
  kRows,        // [ceil(out / 8), groups]: nibble k is row 8 r + k
  kAwq,         // [groups, out / 8], nibbles as in "awq" codes
  kGptq,        // [groups, out / 8], nibble k is row 8 c + k, stored less one
  kGptqAsItIs,  // the same, not less one
};
enum class ScaleOrder : uint8_t {
  kRows,    // [out, groups]
  kGroups,  // [groups, out]
};

struct Int4Parts {
  uint64_t out = 0;
  uint64_t in = 0;
  SafetensorsTensor codes;  // I32
  std::string arrangement;  // code_arrangement.h
  SafetensorsTensor scales;
  ScaleOrder scale_order = ScaleOrder::kRows;
  std::optional<SafetensorsTensor> zeros;  // I32; absent: all 8
  ZeroWords zero_words = ZeroWords::kRows;
};

// Groups of 128 k or 64 k columns become groups of 128 or 64 with equal scales; zero points that
// are all 8 are left out. UNIMPLEMENTED naming the group when it is finer. A scale that float16
// does not hold is an error when made, unless every code of its group means 0.
[[nodiscard]] StatusOr<CheckpointTensor> Int4Weight(const std::string& name, Int4Parts parts);

// The same for 8-bit codes in 32-bit words, biased by 128 ([out, in / 4]), with a scale for each
// row or one for all.
[[nodiscard]] StatusOr<CheckpointTensor> PackedByteWeight(const std::string& name, uint64_t out,
                                                          uint64_t in,
                                                          const SafetensorsTensor& codes,
                                                          const SafetensorsTensor& scales);

}  // namespace tessera::blockzoo
