#include "blockzoo/zoo_report.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "blockzoo/zoo_io.h"

namespace tessera::blockzoo {
namespace {

// Columns are as wide as their widest cell; numbers are right-aligned.
class Table {
 public:
  enum class Align : uint8_t { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {
    for (const Column& column : columns_) widths_.push_back(column.title.size());
  }

  void Add(std::vector<std::string> cells) {
    for (size_t i = 0; i < cells.size(); ++i) widths_[i] = std::max(widths_[i], cells[i].size());
    rows_.push_back(std::move(cells));
  }

  [[nodiscard]] std::string Text() const {
    std::vector<std::string> titles;
    for (const Column& column : columns_) titles.push_back(column.title);
    std::string text = Line(titles);
    for (const auto& row : rows_) text += Line(row);
    return text;
  }

 private:
  [[nodiscard]] std::string Line(const std::vector<std::string>& cells) const {
    std::string line;
    for (size_t i = 0; i < cells.size(); ++i) {
      const std::string padding(widths_[i] - cells[i].size(), ' ');
      if (i != 0) line += "  ";
      line += columns_[i].align == Align::kRight ? padding + cells[i] : cells[i] + padding;
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    return line + "\n";
  }

  std::vector<Column> columns_;
  std::vector<size_t> widths_;
  std::vector<std::vector<std::string>> rows_;
};

constexpr auto kRight = Table::Align::kRight;

std::string Plural(uint64_t count, absl::string_view noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

std::string RotaryText(const RotarySettings& rotary) {
  std::string text = absl::StrCat("dim ", rotary.dim, ", base ", rotary.base);
  if (!rotary.scaling.empty() && rotary.scaling != "none") {
    absl::StrAppend(&text, ", ", rotary.scaling, " scaling by ", rotary.factor);
  }
  if (!rotary.frequency_factors.empty()) absl::StrAppend(&text, ", frequency factors");
  return text;
}

// "Q4_1, F32": the element types of a block, the largest share first.
std::string TypesText(const BlockManifest& manifest) {
  std::map<std::string, uint64_t> bytes;
  for (const TensorRef& ref : manifest.tensors) {
    bytes[kernels::InfoOf(ref.dtype).name] += TensorBytes(ref.dtype, ref.shape).value_or(0);
  }
  std::vector<std::pair<uint64_t, std::string>> sorted;
  for (const auto& [name, size] : bytes) sorted.emplace_back(size, name);
  std::sort(sorted.rbegin(), sorted.rend());
  std::vector<std::string> names;
  for (const auto& [size, name] : sorted) names.push_back(name);
  return absl::StrJoin(names, ", ");
}

}  // namespace

std::string CountText(uint64_t count) {
  static constexpr struct {
    double unit;
    const char* suffix;
  } kUnits[] = {{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "K"}};
  for (const auto& [unit, suffix] : kUnits) {
    const double value = static_cast<double>(count) / unit;
    if (value < 1) continue;
    char text[32];
    std::snprintf(text, sizeof(text),
                  value < 10    ? "%.2f%s"
                  : value < 100 ? "%.1f%s"
                                : "%.0f%s",
                  value, suffix);
    return text;
  }
  return std::to_string(count);
}

std::string Render(const ImportReport& report) {
  if (report.outcome == ImportReport::Outcome::kAlreadyThere && report.new_bytes == 0) {
    return absl::StrCat(report.chain.name, " is already there: revision ",
                        RevisionOf(report.chain).Short(), ", nothing to do\n");
  }
  static constexpr const char* kWords[] = {"imported", "replaced", "repaired"};
  char seconds[32];
  std::snprintf(seconds, sizeof(seconds), "%.1f s", report.seconds);
  return absl::StrCat(kWords[static_cast<size_t>(report.outcome)], " ", report.chain.name, ": ",
                      Plural(report.chain.blocks.size(), "block"), ", ",
                      BytesText(report.tensor_bytes), " of weights, ", BytesText(report.new_bytes),
                      " new in the zoo, in ", seconds, "\n");
}

std::string Render(const ExportReport& report) {
  char seconds[32];
  std::snprintf(seconds, sizeof(seconds), "%.1f s", report.seconds);
  std::string text = absl::StrCat("exported to ", report.path, " as ", report.format, ": ",
                                  BytesText(report.bytes), " in ", seconds, "\n");
  for (const std::string& file : report.files) absl::StrAppend(&text, "  ", file, "\n");
  return text;
}

std::string Render(const SynthReport& report) {
  const ChainManifest& first = report.chains.front();
  std::string names = first.name;
  if (report.chains.size() > 1) absl::StrAppend(&names, " to ", report.chains.back().name);
  return absl::StrCat("synthesised ", names, ": ", Plural(report.chains.size(), "chain"), " of ",
                      Plural(first.blocks.size(), "block"), ", ", BytesText(report.weight_bytes),
                      " of weights, ", BytesText(report.new_bytes), " new in the zoo\n");
}

std::string Render(const QuantizeReport& report) {
  char numbers[96];
  std::snprintf(numbers, sizeof(numbers), "mean %.5f, worst %.5f", report.mean_error,
                report.worst_error);
  char seconds[32];
  std::snprintf(seconds, sizeof(seconds), "%.1f s", report.seconds);
  return absl::StrCat(
      "quantized ", report.chain.name, ": ", Plural(report.tensors, "tensor"), ", ",
      BytesText(report.bytes), " for ", BytesText(report.source_bytes), ", ",
      BytesText(report.new_bytes), " new in the zoo, in ", seconds,
      report.tensors == 0
          ? ""
          : absl::StrCat("\nrelative L2 error: ", numbers, " (", report.worst_tensor, ")"),
      report.fallback_tensors == 0
          ? ""
          : absl::StrCat("\n", Plural(report.fallback_tensors, "tensor"), " in ",
                         report.fallback_type, ": their rows are no multiple of 256"),
      "\n");
}

std::string Render(const ZooListing& listing) {
  if (listing.chains.empty()) {
    return absl::StrCat("no chains in ", listing.directory,
                        "; add one with `tessera zoo import PATH --name NAME`\n");
  }
  Table table({{"CHAIN"},
               {"ARCHITECTURE"},
               {"BLOCKS", kRight},
               {"PARAMETERS", kRight},
               {"WEIGHTS", kRight},
               {"UNIQUE", kRight},
               {"SHARED", kRight}});
  std::string problems;
  for (const ChainSummary& chain : listing.chains) {
    if (!chain.problem.empty()) {
      table.Add({chain.name, "damaged", "-", "-", "-", "-", "-"});
      absl::StrAppend(&problems, chain.name, ": ", chain.problem, "\n");
      continue;
    }
    table.Add({chain.name, chain.architecture, std::to_string(chain.blocks),
               CountText(chain.parameters), BytesText(chain.weight_bytes),
               BytesText(chain.unique_bytes), BytesText(chain.weight_bytes - chain.unique_bytes)});
  }
  return absl::StrCat(table.Text(), Plural(listing.chains.size(), "chain"), ", ",
                      BytesText(listing.distinct_bytes - listing.made_bytes), " stored for ",
                      BytesText(listing.summed_bytes), " of weights",
                      listing.made_bytes == 0
                          ? ""
                          : absl::StrCat(", ", BytesText(listing.made_bytes), " made at load"),
                      "\n", problems);
}

std::string Render(const ChainDetails& details) {
  const ChainManifest& chain = details.chain;
  std::string text = absl::StrCat("chain         ", chain.name, "\nrevision      ",
                                  details.revision.Hex(), "\narchitecture  ", chain.architecture,
                                  "\nwidth         ", chain.width, "\nvocabulary    ", chain.vocab,
                                  "\ncontext       ", chain.max_context, " tokens\n");
  for (const RotarySettings& rotary : chain.rotary) {
    absl::StrAppend(&text, "rotary        ", RotaryText(rotary), "\n");
  }
  absl::StrAppend(&text, "end tokens    ", absl::StrJoin(chain.end_token_ids, ", "), "\n");
  for (const auto& [name, digest] : chain.assets) {
    absl::StrAppend(&text, "asset         ", name, " ", digest.Short(), "\n");
  }
  for (const auto& [name, value] : chain.provenance) {
    absl::StrAppend(&text, "from          ", name, ": ", value, "\n");
  }
  const ChainSummary& summary = details.summary;
  absl::StrAppend(&text, "weights       ", CountText(summary.parameters), " parameters, ",
                  BytesText(summary.weight_bytes), ", of which ", BytesText(summary.unique_bytes),
                  " unique and ", BytesText(summary.weight_bytes - summary.unique_bytes),
                  " shared with other chains\n");
  if (summary.made_bytes > 0) {
    absl::StrAppend(&text, "synthetic     ", BytesText(summary.made_bytes), " made at load\n");
  }
  text += "\n";
  Table table(
      {{"#", kRight}, {"TYPE"}, {"BLOCK"}, {"ELEMENTS"}, {"BYTES", kRight}, {"CHAINS", kRight}});
  for (size_t i = 0; i < details.blocks.size(); ++i) {
    const BlockDetails& block = details.blocks[i];
    table.Add({std::to_string(i), block.manifest.type, block.block.Short(),
               TypesText(block.manifest), BytesText(block.bytes),
               std::to_string(block.used_by_chains)});
  }
  return text + table.Text();
}

std::string Render(const ChainDiff& diff) {
  std::string text =
      absl::StrCat(diff.a, " / ", diff.b, ": ", Plural(diff.equal_blocks, "equal block"), ", ",
                   diff.blocks.size(), " different\n", BytesText(diff.shared_bytes), " shared, ",
                   BytesText(diff.only_a_bytes), " only in ", diff.a, ", ",
                   BytesText(diff.only_b_bytes), " only in ", diff.b, "\n");
  for (const std::string& setting : diff.settings) absl::StrAppend(&text, "  ", setting, "\n");
  if (diff.blocks.empty()) return text;
  Table table({{"#", kRight}, {"TYPE"}, {"DIFFERENCE"}});
  for (const DiffLine& line : diff.blocks) {
    std::string what = absl::StrJoin(line.what, "; ");
    if (line.kind == DiffLine::Kind::kOnlyInA) what = absl::StrCat("only in ", diff.a);
    if (line.kind == DiffLine::Kind::kOnlyInB) what = absl::StrCat("only in ", diff.b);
    table.Add({std::to_string(line.position), line.type, what});
  }
  return text + table.Text();
}

std::string Render(const VerifyReport& report) {
  std::string text =
      absl::StrCat(Plural(report.chains, "chain"), ", ", Plural(report.blocks, "block"), ", ",
                   Plural(report.tensors, "tensor"), ", ", Plural(report.recipes, "recipe"), ", ",
                   Plural(report.assets, "asset"), ", ", report.derived,
                   " derived: ", BytesText(report.bytes), " hashed\n");
  if (report.unreferenced > 0) {
    absl::StrAppend(&text, Plural(report.unreferenced, "object"),
                    " of no chain: `tessera zoo gc` removes what no daemon uses\n");
  }
  for (const std::string& problem : report.problems) {
    absl::StrAppend(&text, "problem: ", problem, "\n");
  }
  return absl::StrCat(text, report.problems.empty()
                                ? "the zoo is sound\n"
                                : absl::StrCat(Plural(report.problems.size(), "problem"), "\n"));
}

std::string Render(const GcReport& report, GcTense tense) {
  std::string text = absl::StrCat(tense == GcTense::kDone ? "removed " : "would remove ",
                                  Plural(report.objects, "object"), " and ", report.derived,
                                  " derived, ", BytesText(report.freed_bytes), "; kept ",
                                  Plural(report.kept_objects, "object"), "\n");
  if (!report.pinned_chains.empty()) {
    absl::StrAppend(&text, "in use by running daemons: ", absl::StrJoin(report.pinned_chains, ", "),
                    "\n");
  }
  if (report.stale_pins > 0) {
    absl::StrAppend(&text, Plural(report.stale_pins, "pin"), " of dead daemons\n");
  }
  return text;
}

}  // namespace tessera::blockzoo
