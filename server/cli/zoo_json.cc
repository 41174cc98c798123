#include "server/cli/zoo_json.h"

#include <nlohmann/json.hpp>
#include <variant>

namespace tessera::server::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string Dumped(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json SummaryJson(const blockzoo::ChainSummary& chain) {
  Json out{{"name", chain.name}};
  if (!chain.problem.empty()) {
    out["problem"] = chain.problem;
    return out;
  }
  out["architecture"] = chain.architecture;
  out["blocks"] = chain.blocks;
  out["parameters"] = chain.parameters;
  out["weight_bytes"] = chain.weight_bytes;
  out["unique_bytes"] = chain.unique_bytes;
  out["made_bytes"] = chain.made_bytes;
  return out;
}

Json AttributesJson(const blockzoo::Attributes& attributes) {
  Json out = Json::object();
  for (const auto& [name, value] : attributes.values()) {
    std::visit([&, key = name](const auto& held) { out[key] = held; }, value);
  }
  return out;
}

Json BlockJson(const blockzoo::BlockDetails& block) {
  Json out{{"block", block.block.Hex()},
           {"type", block.manifest.type},
           {"attributes", AttributesJson(block.manifest.attributes)},
           {"bytes", block.bytes},
           {"used_by_chains", block.used_by_chains},
           {"tensors", Json::array()}};
  for (const blockzoo::TensorRef& tensor : block.manifest.tensors) {
    out["tensors"].push_back({{"role", tensor.role},
                              {"tensor", tensor.tensor.Hex()},
                              {"type", kernels::InfoOf(tensor.dtype).name},
                              {"shape", tensor.shape}});
  }
  return out;
}

Json ChainJson(const blockzoo::ChainManifest& chain) {
  Json out{{"name", chain.name},
           {"revision", blockzoo::RevisionOf(chain).Hex()},
           {"architecture", chain.architecture},
           {"width", chain.width},
           {"vocab", chain.vocab},
           {"max_context", chain.max_context},
           {"end_token_ids", chain.end_token_ids},
           {"blocks", chain.blocks.size()},
           {"assets", Json::object()},
           {"provenance", chain.provenance}};
  for (const auto& [name, digest] : chain.assets) out["assets"][name] = digest.Hex();
  return out;
}

const char* NameOf(blockzoo::ImportReport::Outcome outcome) {
  using Outcome = blockzoo::ImportReport::Outcome;
  switch (outcome) {
    case Outcome::kAdded:
      return "added";
    case Outcome::kReplaced:
      return "replaced";
    case Outcome::kAlreadyThere:
      return "already_there";
  }
  return "";
}

const char* NameOf(blockzoo::DiffLine::Kind kind) {
  using Kind = blockzoo::DiffLine::Kind;
  switch (kind) {
    case Kind::kChanged:
      return "changed";
    case Kind::kOnlyInA:
      return "only_in_a";
    case Kind::kOnlyInB:
      return "only_in_b";
  }
  return "";
}

}  // namespace

std::string ToJson(const blockzoo::ImportReport& report) {
  return Dumped({{"chain", ChainJson(report.chain)},
                 {"outcome", NameOf(report.outcome)},
                 {"tensor_bytes", report.tensor_bytes},
                 {"new_bytes", report.new_bytes},
                 {"new_objects", report.new_objects},
                 {"shared_bytes", report.shared_bytes},
                 {"seconds", report.seconds}});
}

std::string ToJson(const blockzoo::ExportReport& report) {
  return Dumped({{"path", report.path},
                 {"format", report.format},
                 {"files", report.files},
                 {"bytes", report.bytes},
                 {"seconds", report.seconds}});
}

std::string ToJson(const blockzoo::SynthReport& report) {
  Json out{{"chains", Json::array()},
           {"weight_bytes", report.weight_bytes},
           {"new_bytes", report.new_bytes},
           {"new_objects", report.new_objects},
           {"seconds", report.seconds}};
  for (const blockzoo::ChainManifest& chain : report.chains) {
    out["chains"].push_back(ChainJson(chain));
  }
  return Dumped(out);
}

std::string ToJson(const blockzoo::QuantizeReport& report,
                   const std::optional<PerplexityCost>& cost) {
  Json out{{"chain", ChainJson(report.chain)},
           {"tensors", report.tensors},
           {"mean_error", report.mean_error},
           {"worst_error", report.worst_error},
           {"worst_tensor", report.worst_tensor},
           {"fallback_tensors", report.fallback_tensors},
           {"fallback_type", report.fallback_type},
           {"source_bytes", report.source_bytes},
           {"bytes", report.bytes},
           {"new_bytes", report.new_bytes},
           {"seconds", report.seconds}};
  if (cost) {
    out["perplexity"] = {{"source", cost->source.value},
                         {"chain", cost->made.value},
                         {"context", cost->context},
                         {"scored", cost->made.scored}};
  }
  return Dumped(out);
}

std::string ToJson(const blockzoo::ZooListing& listing) {
  Json out{{"directory", listing.directory},
           {"chains", Json::array()},
           {"summed_bytes", listing.summed_bytes},
           {"distinct_bytes", listing.distinct_bytes},
           {"made_bytes", listing.made_bytes}};
  for (const blockzoo::ChainSummary& chain : listing.chains) {
    out["chains"].push_back(SummaryJson(chain));
  }
  return Dumped(out);
}

std::string ToJson(const blockzoo::ChainDetails& details) {
  Json out = ChainJson(details.chain);
  out["parameters"] = details.summary.parameters;
  out["weight_bytes"] = details.summary.weight_bytes;
  out["unique_bytes"] = details.summary.unique_bytes;
  out["made_bytes"] = details.summary.made_bytes;
  out["blocks"] = Json::array();
  for (const blockzoo::BlockDetails& block : details.blocks) {
    out["blocks"].push_back(BlockJson(block));
  }
  return Dumped(out);
}

std::string ToJson(const blockzoo::ChainDiff& diff) {
  Json out{{"a", diff.a},
           {"b", diff.b},
           {"equal_blocks", diff.equal_blocks},
           {"shared_bytes", diff.shared_bytes},
           {"only_a_bytes", diff.only_a_bytes},
           {"only_b_bytes", diff.only_b_bytes},
           {"settings", diff.settings},
           {"blocks", Json::array()}};
  for (const blockzoo::DiffLine& line : diff.blocks) {
    out["blocks"].push_back({{"position", line.position},
                             {"type", line.type},
                             {"kind", NameOf(line.kind)},
                             {"what", line.what}});
  }
  return Dumped(out);
}

std::string ToJson(const blockzoo::VerifyReport& report) {
  return Dumped({{"sound", report.problems.empty()},
                 {"chains", report.chains},
                 {"blocks", report.blocks},
                 {"tensors", report.tensors},
                 {"recipes", report.recipes},
                 {"assets", report.assets},
                 {"derived", report.derived},
                 {"bytes", report.bytes},
                 {"unreferenced", report.unreferenced},
                 {"problems", report.problems}});
}

std::string ToJson(const blockzoo::GcReport& report) {
  return Dumped({{"objects", report.objects},
                 {"derived", report.derived},
                 {"freed_bytes", report.freed_bytes},
                 {"kept_objects", report.kept_objects},
                 {"stale_pins", report.stale_pins},
                 {"pinned_chains", report.pinned_chains}});
}

std::string ToJson(const blockzoo::ChainManifest& chain) { return Dumped(ChainJson(chain)); }

}  // namespace tessera::server::cli
