#include "kernels/cpu/tile_costs.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace tessera::kernels::cpu {
namespace {

// One more with every change of the text or of how fast the kernels are.
constexpr absl::string_view kVersionLine = "tessera tile costs 5";
constexpr size_t kMaxTextBytes = size_t{64} << 10;
constexpr uint32_t kMaxNs = 1'000'000'000;

std::string ProcessorLine(const TileCosts::Key& key) {
  return absl::StrCat("processor ", key.processor);
}

Status Malformed(size_t line, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument, {.what = "the table of tile costs is damaged",
                                                    .where = absl::StrCat("line ", line),
                                                    .why = std::string(why),
                                                    .fix = "delete it: it is measured again"});
}

bool ReadNumber(absl::string_view word, uint32_t most, uint32_t& value) {
  return !word.empty() && word[0] >= '1' && word[0] <= '9' && absl::SimpleAtoi(word, &value) &&
         value <= most;
}

struct Line {
  DType dtype = DType::kF32;
  size_t rows_index = 0;
  TileCosts::Cost cost;
};

// product TYPE rows N vectors NS tiles NS
std::optional<Line> ReadProduct(absl::string_view text) {
  const std::vector<absl::string_view> words = absl::StrSplit(text, ' ');
  if (words.size() != 8 || words[0] != "product" || words[2] != "rows" || words[4] != "vectors" ||
      words[6] != "tiles") {
    return std::nullopt;
  }
  const std::optional<DType> dtype = DTypeFromName(words[1]);
  if (!dtype.has_value() || static_cast<int>(*dtype) >= kWeightTypeCount) return std::nullopt;
  Line line{.dtype = *dtype};
  uint32_t rows = 0;
  if (!ReadNumber(words[3], TileCosts::kRows.back(), rows) ||
      !ReadNumber(words[5], kMaxNs, line.cost.vectors_ns) ||
      !ReadNumber(words[7], kMaxNs, line.cost.tiles_ns)) {
    return std::nullopt;
  }
  const auto* const at =
      std::find(TileCosts::kRows.begin(), TileCosts::kRows.end(), static_cast<int32_t>(rows));
  if (at == TileCosts::kRows.end()) return std::nullopt;
  line.rows_index = static_cast<size_t>(at - TileCosts::kRows.begin());
  return line;
}

bool Measured(const TileCosts::Cost& cost) { return cost.vectors_ns != 0 && cost.tiles_ns != 0; }

// A trial while others use the core shows less of what tiles gain than there is without them, so up
// to a tenth counts for nothing.
bool Preferred(const TileCosts::Cost& cost) {
  return Measured(cost) && uint64_t{cost.tiles_ns} * 10 < uint64_t{cost.vectors_ns} * 11;
}

}  // namespace

bool TileCosts::Tiles(DType dtype, int32_t rows) const {
  const auto* at = std::lower_bound(kRows.begin(), kRows.end(), rows);
  if (at == kRows.end()) --at;
  return Preferred(costs_[static_cast<size_t>(dtype)][static_cast<size_t>(at - kRows.begin())]);
}

bool TileCosts::Has(DType dtype) const {
  const Costs& costs = costs_[static_cast<size_t>(dtype)];
  return std::all_of(costs.begin(), costs.end(), Measured);
}

std::string TileCosts::Describe() const {
  std::vector<std::string> types;
  for (size_t type = 0; type < costs_.size(); ++type) {
    if (!Has(static_cast<DType>(type))) continue;
    std::vector<std::string> rows;
    for (size_t i = 0; i < kRows.size(); ++i) {
      const Cost& cost = costs_[type][i];
      if (!Preferred(cost)) continue;
      rows.push_back(
          absl::StrFormat("%d rows (%.2fx)", kRows[i], 1.0 * cost.vectors_ns / cost.tiles_ns));
    }
    types.push_back(absl::StrCat(InfoOf(static_cast<DType>(type)).name, ": ",
                                 rows.empty() ? "vectors" : "tiles for ",
                                 absl::StrJoin(rows, ", ")));
  }
  return absl::StrJoin(types, "; ");
}

std::string TileCosts::Text(const Key& key) const {
  std::string text = absl::StrCat(kVersionLine, "\n", ProcessorLine(key), "\n");
  for (size_t type = 0; type < costs_.size(); ++type) {
    for (size_t i = 0; i < kRows.size(); ++i) {
      const Cost& cost = costs_[type][i];
      if (!Measured(cost)) continue;
      absl::StrAppend(&text, "product ", InfoOf(static_cast<DType>(type)).name, " rows ", kRows[i],
                      " vectors ", cost.vectors_ns, " tiles ", cost.tiles_ns, "\n");
    }
  }
  return text + "end\n";
}

StatusOr<TileCosts> TileCosts::Parse(absl::string_view text, const Key& key) {
  if (text.size() > kMaxTextBytes) return Malformed(1, "it is too long");
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  const std::string wanted[] = {std::string(kVersionLine), ProcessorLine(key)};
  for (size_t i = 0; i < 2; ++i) {
    if (i < lines.size() && lines[i] == wanted[i]) continue;
    return Error(absl::StatusCode::kFailedPrecondition,
                 {.what = "the table of tile costs was measured under other conditions",
                  .where = absl::StrCat("line ", i + 1),
                  .why = absl::StrCat("it does not say \"", wanted[i], "\"")});
  }
  if (lines.size() < 4 || lines.back() != "" || lines[lines.size() - 2] != "end") {
    return Malformed(lines.size(), "it does not end with \"end\"");
  }
  TileCosts table;
  for (size_t i = 2; i + 2 < lines.size(); ++i) {
    const std::optional<Line> line = ReadProduct(lines[i]);
    if (!line.has_value()) return Malformed(i + 1, "not a product's cost");
    table.costs_[static_cast<size_t>(line->dtype)][line->rows_index] = line->cost;
  }
  return table;
}

}  // namespace tessera::kernels::cpu
