// How checkpoints order codes that weight_planes.h keeps as rows, 4-bit ones low nibble first. A
// file's are little-endian 32-bit words, for 4 bits of eight nibbles:
//   ""      [out, in / 8], nibble k of a word is column 8 c + k: the canonical bytes themselves
//   "gptq"  [in / 8, out], nibble k of a word is column 8 r + k
//   "awq"   [in, out / 8], nibble k of a word is row 8 c + {0, 2, 4, 6, 1, 3, 5, 7}[k]
// and for 8 bits of four bytes:
//   "biased"  [out, in / 4], each byte 128 more than the code
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::blockzoo {

// The place of row `row % 8` among an "awq" word's nibbles.
[[nodiscard]] uint32_t AwqNibble(uint64_t row);

// Both sides have the size of the codes of [out, in]; for 4 bits `in` and, for "awq", `out` are
// multiples of 8. INVALID_ARGUMENT when `arrangement` is unknown or the sizes do not fit.
[[nodiscard]] Status CanonicalCodes(absl::string_view arrangement, uint64_t out, uint64_t in,
                                    std::span<const std::byte> file, std::span<std::byte> codes);
// The inverse.
[[nodiscard]] Status ArrangeCodes(absl::string_view arrangement, uint64_t out, uint64_t in,
                                  std::span<const std::byte> codes, std::span<std::byte> file);

}  // namespace tessera::blockzoo
