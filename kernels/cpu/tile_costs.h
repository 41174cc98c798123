// Whether the products of a weight type are made on tile registers or on vectors: what the two were
// measured to take on this processor. They give the same bits. A plain value; its text outlives the
// process.
//
// Text: a line each for the version, the processor, and every type and number of rows; then "end".
//   tessera tile costs 5
//   processor Intel(R) Xeon(R) Platinum 8481C 806f8
//   product Q4_1 rows 64 vectors 515234 tiles 402113
//   end
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "kernels/dtype.h"

namespace tessera::kernels::cpu {

class TileCosts {
 public:
  // What costs depend on beside the kernels of this version.
  struct Key {
    std::string processor;  // its name and its signature (cpuid 1, hexadecimal); one line
  };
  // Numbers of rows with a cost of their own; others cost what the next of them does, more what the
  // last does.
  static constexpr std::array<int32_t, 6> kRows = {4, 8, 16, 32, 64, 128};
  // Nanoseconds of the same products; 0: not measured.
  struct Cost {
    uint32_t vectors_ns = 0;
    uint32_t tiles_ns = 0;
  };
  using Costs = std::array<Cost, kRows.size()>;

  // For 1 or more rows; vectors where nothing was measured.
  [[nodiscard]] bool Tiles(DType dtype, int32_t rows) const;
  [[nodiscard]] bool Has(DType dtype) const;
  void Set(DType dtype, const Costs& costs) { costs_[static_cast<size_t>(dtype)] = costs; }

  // "Q4_1: tiles for 64 rows (1.28x), 128 rows (1.31x); Q8_0: vectors", in the types' order.
  [[nodiscard]] std::string Describe() const;

  [[nodiscard]] std::string Text(const Key& key) const;
  // INVALID_ARGUMENT with the line for what Text does not write, FAILED_PRECONDITION for a table of
  // another processor or version: measure again.
  [[nodiscard]] static StatusOr<TileCosts> Parse(absl::string_view text, const Key& key);

 private:
  std::array<Costs, kWeightTypeCount> costs_{};
};

}  // namespace tessera::kernels::cpu
