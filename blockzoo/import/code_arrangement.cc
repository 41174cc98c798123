#include "blockzoo/import/code_arrangement.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

static_assert(std::endian::native == std::endian::little, "words are read in place");

constexpr uint32_t kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
constexpr uint64_t kTile = 16;  // words of a cache line

uint32_t WordAt(const std::byte* words, uint64_t index) {
  uint32_t word;
  std::memcpy(&word, words + index * sizeof(word), sizeof(word));
  return word;
}

void SetWord(std::byte* words, uint64_t index, uint32_t word) {
  std::memcpy(words + index * sizeof(word), &word, sizeof(word));
}

// words [rows, columns] to [columns, rows], by tiles that fit the nearest cache.
void Transpose(const std::byte* from, uint64_t rows, uint64_t columns, std::byte* to) {
  for (uint64_t top = 0; top < rows; top += kTile) {
    for (uint64_t left = 0; left < columns; left += kTile) {
      for (uint64_t row = top; row < std::min(rows, top + kTile); ++row) {
        for (uint64_t column = left; column < std::min(columns, left + kTile); ++column) {
          SetWord(to, column * rows + row, WordAt(from, row * columns + column));
        }
      }
    }
  }
}

// Eight words of eight nibbles, turned: nibble `i` of out[j] is nibble `place[j]` of in[i].
std::array<uint32_t, 8> FromAwq(const std::array<uint32_t, 8>& in) {
  std::array<uint32_t, 8> out{};
  for (uint32_t j = 0; j < 8; ++j) {
    for (uint32_t i = 0; i < 8; ++i) out[j] |= (in[i] >> (4 * kAwqNibble[j]) & 15) << (4 * i);
  }
  return out;
}

std::array<uint32_t, 8> ToAwq(const std::array<uint32_t, 8>& in) {
  std::array<uint32_t, 8> out{};
  for (uint32_t j = 0; j < 8; ++j) {
    for (uint32_t i = 0; i < 8; ++i) out[i] |= (in[j] >> (4 * i) & 15) << (4 * kAwqNibble[j]);
  }
  return out;
}

enum class Way : uint8_t { kFromFile, kToFile };

// Both matrices in tiles of 8 rows by 8 columns: in the file eight words one below the other, in
// the canonical codes too, since either's word is eight of the other's rows.
void TurnAwq(Way way, uint64_t out, uint64_t in, const std::byte* from, std::byte* to) {
  for (uint64_t row = 0; row < out / 8; ++row) {
    for (uint64_t column = 0; column < in / 8; ++column) {
      std::array<uint32_t, 8> words;
      for (uint64_t i = 0; i < 8; ++i) {
        words[i] = way == Way::kFromFile ? WordAt(from, (column * 8 + i) * (out / 8) + row)
                                         : WordAt(from, (row * 8 + i) * (in / 8) + column);
      }
      words = way == Way::kFromFile ? FromAwq(words) : ToAwq(words);
      for (uint64_t i = 0; i < 8; ++i) {
        SetWord(to,
                way == Way::kFromFile ? (row * 8 + i) * (in / 8) + column
                                      : (column * 8 + i) * (out / 8) + row,
                words[i]);
      }
    }
  }
}

Status Turn(Way way, absl::string_view arrangement, uint64_t out, uint64_t in,
            std::span<const std::byte> from, std::span<std::byte> to) {
  const uint64_t bytes = arrangement == "biased" ? out * in : out * (in / 2);
  const bool fits = from.size() == bytes && to.size() == bytes && in % 8 == 0 &&
                    (arrangement != "awq" || out % 8 == 0);
  if (fits && arrangement.empty()) {
    std::copy(from.begin(), from.end(), to.begin());
  } else if (from.size() == bytes && to.size() == bytes && arrangement == "biased") {
    std::transform(from.begin(), from.end(), to.begin(),
                   [](std::byte code) { return code ^ std::byte{0x80}; });
  } else if (fits && arrangement == "gptq") {
    const uint64_t rows = way == Way::kFromFile ? in / 8 : out;
    Transpose(from.data(), rows, from.size() / 4 / rows, to.data());
  } else if (fits && arrangement == "awq") {
    TurnAwq(way, out, in, from.data(), to.data());
  } else {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("codes [", out, ", ", in, "] of ", from.size(),
                                       " bytes cannot be arranged as \"", arrangement, "\"")});
  }
  return absl::OkStatus();
}

}  // namespace

uint32_t AwqNibble(uint64_t row) { return kAwqNibble[row % 8]; }

Status CanonicalCodes(absl::string_view arrangement, uint64_t out, uint64_t in,
                      std::span<const std::byte> file, std::span<std::byte> codes) {
  return Turn(Way::kFromFile, arrangement, out, in, file, codes);
}

Status ArrangeCodes(absl::string_view arrangement, uint64_t out, uint64_t in,
                    std::span<const std::byte> codes, std::span<std::byte> file) {
  return Turn(Way::kToFile, arrangement, out, in, codes, file);
}

}  // namespace tessera::blockzoo
