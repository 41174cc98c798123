#include "kernels/cuda/linear/cost_table.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <span>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace tessera::kernels::cuda {
namespace {

// One more with every change of the text or of how fast our kernels are.
constexpr absl::string_view kVersionLine = "tessera product costs 12";
constexpr size_t kMaxTextBytes = size_t{4} << 20;
constexpr uint32_t kMaxNs = 1'000'000'000;
constexpr uint32_t kMaxIn = 65536;
constexpr uint32_t kMaxOut = 524288;
constexpr uint32_t kMaxBucket = 1 << 20;

constexpr const char* kForms[] = {"store", "logits", "residual", "gated"};
constexpr const char* kOperands[] = {"bf16", "f8_channel", "f8_block128"};
constexpr const char* kOutputs[] = {"bf16", "f32"};
constexpr const char* kAdditions[] = {"plain", "added"};
constexpr const char* kBiases[] = {"no_bias", "bias"};

// How lines of algorithms begin.
constexpr absl::string_view kFast = "algorithm";
constexpr absl::string_view kInvariant = "invariant";

using Words = std::vector<absl::string_view>;

template <typename Enum, size_t count>
bool Read(absl::string_view word, const char* const (&names)[count], Enum& value) {
  const auto* const found = std::find(std::begin(names), std::end(names), word);
  value = static_cast<Enum>(found - names);
  return found != std::end(names);
}

bool Read(absl::string_view word, uint32_t most, uint32_t& value) {
  return !word.empty() && word[0] >= '0' && word[0] <= '9' && absl::SimpleAtoi(word, &value) &&
         value <= most;
}

bool ReadSize(absl::string_view word, uint32_t most, int32_t& value) {
  uint32_t number = 0;
  const bool read = Read(word, most, number) && number > 0;
  value = static_cast<int32_t>(number);
  return read;
}

bool ReadNs(absl::string_view word, uint32_t& ns) {
  ns = 0;
  return word == "-" || (Read(word, kMaxNs, ns) && ns > 0);
}

std::string NsText(uint32_t ns) { return ns == 0 ? "-" : absl::StrCat(ns); }

std::vector<std::string> KeyLines(const CostKey& key) {
  std::string device = key.device;
  for (char& c : device) {
    if (c < ' ') c = ' ';
  }
  return {absl::StrCat("device ", device), absl::StrCat("capability ", key.major, ".", key.minor),
          absl::StrCat("driver ", key.driver_version),
          absl::StrCat("cublaslt ", key.library_version)};
}

std::string LineOf(const ProductGroup& group, int32_t rows, const ProductCost& cost) {
  const auto last = std::find(group.outs.begin(), group.outs.end(), 0);
  return absl::StrCat("product ", InfoOf(group.dtype).name, " ",
                      kForms[static_cast<int>(group.form)], " ", group.in, " ",
                      absl::StrJoin(group.outs.begin(), last, ","), " rows ", rows, " skinny ",
                      NsText(cost.skinny_ns), " gemm ", NsText(cost.gemm_ns), "\n");
}

std::string LineOf(absl::string_view first_word, const GemmAlgorithm& algorithm) {
  const ProductKind& kind = algorithm.kind;
  return absl::StrCat(first_word, " ", kOperands[static_cast<int>(kind.operands)], " ",
                      kOutputs[static_cast<int>(kind.output)], " ",
                      kAdditions[static_cast<int>(kind.addition)], " ",
                      kBiases[static_cast<int>(kind.bias)], " ", kind.out, " ", kind.in, " rows ",
                      algorithm.bucket, " : ", absl::StrJoin(algorithm.config, " "), "\n");
}

bool ReadOuts(absl::string_view word, std::array<int32_t, kMaxProducts>& outs) {
  const Words words = absl::StrSplit(word, ',');
  if (words.size() > outs.size()) return false;
  for (size_t i = 0; i < words.size(); ++i) {
    if (!ReadSize(words[i], kMaxOut, outs[i])) return false;
  }
  return true;
}

// product TYPE FORM IN OUTS rows N skinny NS gemm NS
bool ReadProduct(const Words& words, CostTable& table) {
  if (words.size() != 11 || words[5] != "rows" || words[7] != "skinny" || words[9] != "gemm") {
    return false;
  }
  ProductGroup group;
  const std::optional<DType> dtype = DTypeFromName(words[1]);
  int32_t rows = 0;
  ProductCost cost;
  if (!dtype.has_value() || !Read(words[2], kForms, group.form) ||
      !ReadSize(words[3], kMaxIn, group.in) || !ReadOuts(words[4], group.outs) ||
      !ReadSize(words[6], CostTable::kRows.back(), rows) || !ReadNs(words[8], cost.skinny_ns) ||
      !ReadNs(words[10], cost.gemm_ns)) {
    return false;
  }
  group.dtype = *dtype;
  const auto at = std::find(CostTable::kRows.begin(), CostTable::kRows.end(), rows);
  if (at == CostTable::kRows.end() || (cost.skinny_ns == 0 && cost.gemm_ns == 0)) return false;
  table.Set(group, static_cast<size_t>(at - CostTable::kRows.begin()), cost);
  return true;
}

// algorithm|invariant OPERANDS OUTPUT ADDITION BIAS OUT IN rows N : NUMBER...
bool ReadAlgorithm(const Words& words, std::vector<GemmAlgorithm>& algorithms) {
  constexpr size_t kFirst = 10;
  if (words.size() != kFirst + kAlgorithmAttributes || words[7] != "rows" || words[9] != ":") {
    return false;
  }
  GemmAlgorithm algorithm;
  ProductKind& kind = algorithm.kind;
  bool read = Read(words[1], kOperands, kind.operands) && Read(words[2], kOutputs, kind.output) &&
              Read(words[3], kAdditions, kind.addition) && Read(words[4], kBiases, kind.bias) &&
              ReadSize(words[5], kMaxOut, kind.out) && ReadSize(words[6], kMaxIn, kind.in) &&
              ReadSize(words[8], kMaxBucket, algorithm.bucket);
  for (size_t i = 0; i < kAlgorithmAttributes; ++i) {
    read = read && Read(words[kFirst + i], UINT32_MAX, algorithm.config[i]);
  }
  if (read) algorithms.push_back(algorithm);
  return read;
}

// A measured group's way; the library where neither was tried, which Set never says.
ProductWay Faster(const ProductCost& cost) {
  if (cost.skinny_ns == 0) return ProductWay::kGemm;
  return cost.gemm_ns == 0 || cost.skinny_ns <= cost.gemm_ns ? ProductWay::kSkinny
                                                             : ProductWay::kGemm;
}

// Up to this many rows passes of the streaming kernels win, or nearly, on the products of usual
// models: further for the types that the library needs as bf16 first.
int32_t UsualSkinnyRows(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
    case DType::kF8Channel:
    case DType::kF8Block128:
      return 32;
    default:
      return 192;
  }
}

Status Malformed(size_t line, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument, {.what = "the table of product costs is damaged",
                                                    .where = absl::StrCat("line ", line),
                                                    .why = std::string(why),
                                                    .fix = "delete it: it is measured again"});
}

Status CheckKey(std::span<const absl::string_view> lines, const CostKey& key) {
  std::vector<std::string> wanted = KeyLines(key);
  wanted.insert(wanted.begin(), std::string(kVersionLine));
  if (lines.size() < wanted.size()) return Malformed(lines.size(), "it ends in its head");
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (lines[i] == wanted[i]) continue;
    return Error(absl::StatusCode::kFailedPrecondition,
                 {.what = "the table of product costs was measured under other conditions",
                  .where = absl::StrCat("line ", i + 1),
                  .why = absl::StrCat("it says \"", lines[i].substr(0, 80), "\", here it is \"",
                                      wanted[i], "\"")});
  }
  return absl::OkStatus();
}

}  // namespace

ProductWay CostTable::Choose(const ProductGroup& group, int32_t rows) const {
  const auto at = std::lower_bound(kRows.begin(), kRows.end(), rows);
  if (at == kRows.end()) return ProductWay::kGemm;
  const auto found = costs_.find(group);
  if (found != costs_.end()) {
    const ProductCost& cost = found->second[static_cast<size_t>(at - kRows.begin())];
    if (cost.skinny_ns != 0 || cost.gemm_ns != 0) return Faster(cost);
  }
  return rows <= UsualSkinnyRows(group.dtype) ? ProductWay::kSkinny : ProductWay::kGemm;
}

bool CostTable::Has(const ProductGroup& group, int32_t max_rows) const {
  const auto found = costs_.find(group);
  if (found == costs_.end()) return false;
  for (size_t i = 0; i < kRows.size() && (i == 0 || kRows[i - 1] < max_rows); ++i) {
    if (found->second[i].skinny_ns == 0 && found->second[i].gemm_ns == 0) return false;
  }
  return true;
}

std::string CostTable::Text(const CostKey& key) const {
  std::string text = absl::StrCat(kVersionLine, "\n", absl::StrJoin(KeyLines(key), "\n"), "\n");
  for (const auto& [group, costs] : costs_) {
    for (size_t i = 0; i < kRows.size(); ++i) {
      if (costs[i].skinny_ns == 0 && costs[i].gemm_ns == 0) continue;
      text += LineOf(group, kRows[i], costs[i]);
    }
  }
  for (const GemmAlgorithm& algorithm : algorithms_) text += LineOf(kFast, algorithm);
  for (const GemmAlgorithm& algorithm : invariant_algorithms_) {
    text += LineOf(kInvariant, algorithm);
  }
  return text + "end\n";
}

StatusOr<CostTable> CostTable::Parse(absl::string_view text, const CostKey& key) {
  if (text.size() > kMaxTextBytes) return Malformed(1, "it is too long");
  const Words lines = absl::StrSplit(text, '\n');
  TESSERA_RETURN_IF_ERROR(CheckKey(lines, key));
  if (lines.size() < 2 || lines.back() != "" || lines[lines.size() - 2] != "end") {
    return Malformed(lines.size(), "it does not end with \"end\"");
  }
  CostTable table;
  for (size_t i = 1 + KeyLines(key).size(); i + 2 < lines.size(); ++i) {
    const Words words = absl::StrSplit(lines[i], ' ');
    const bool read = (words[0] == "product" && ReadProduct(words, table)) ||
                      (words[0] == kFast && ReadAlgorithm(words, table.algorithms_)) ||
                      (words[0] == kInvariant && ReadAlgorithm(words, table.invariant_algorithms_));
    if (!read) return Malformed(i + 1, "neither a product's cost nor an algorithm");
  }
  return table;
}

}  // namespace tessera::kernels::cuda
