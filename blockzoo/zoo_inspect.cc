// Zoo::List, Show and Diff.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "blockzoo/manifest_text.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_objects.h"
#include "blockzoo/zoo_references.h"

namespace tessera::blockzoo {
namespace {

uint64_t ElementsOf(const Shape& shape) {
  uint64_t elements = 1;
  for (const uint64_t dimension : shape) elements *= dimension;
  return elements;
}

// Every chain with what it uses, and how many chains use each tensor and block.
struct Survey {
  struct Entry {
    ChainManifest chain;
    References references;
    std::string problem;
  };
  std::vector<Entry> entries;
  std::unordered_map<Digest, uint64_t> tensor_users;
  std::unordered_map<Digest, uint64_t> block_users;
  std::unordered_set<Digest> recipes;
};

StatusOr<Survey> SurveyOf(const ZooLayout& layout, BlockReader& reader) {
  Survey survey;
  std::vector<std::string> strangers;
  TESSERA_ASSIGN_OR_RETURN(const std::vector<Digest> recipes,
                           ListObjects(layout, ObjectKind::kRecipe, strangers));
  survey.recipes.insert(recipes.begin(), recipes.end());
  TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListChainNames(layout));
  for (const std::string& name : names) {
    Survey::Entry entry;
    StatusOr<ChainManifest> chain = ReadChain(layout, name);
    // Removed between the listing and now.
    if (!chain.ok() && absl::IsNotFound(chain.status())) continue;
    Status status = chain.status();
    if (chain.ok()) {
      entry.chain = *std::move(chain);
      status = AddReferences(entry.chain, reader, entry.references);
    }
    entry.chain.name = name;
    if (!status.ok()) entry.problem = std::string(status.message());
    for (const auto& [digest, bytes] : entry.references.tensors) ++survey.tensor_users[digest];
    for (const Digest& digest : entry.references.blocks) ++survey.block_users[digest];
    survey.entries.push_back(std::move(entry));
  }
  return survey;
}

StatusOr<ChainSummary> Summarise(const Survey& survey, const Survey::Entry& entry,
                                 BlockReader& reader) {
  ChainSummary summary;
  summary.name = entry.chain.name;
  summary.architecture = entry.chain.architecture;
  summary.blocks = entry.chain.blocks.size();
  summary.problem = entry.problem;
  if (!entry.problem.empty()) return summary;
  for (const auto& [digest, bytes] : entry.references.tensors) {
    summary.weight_bytes += bytes;
    if (survey.recipes.contains(digest)) summary.made_bytes += bytes;
    if (survey.tensor_users.at(digest) == 1) summary.unique_bytes += bytes;
  }
  std::set<Digest> counted;
  for (const Digest& digest : entry.chain.blocks) {
    TESSERA_ASSIGN_OR_RETURN(const BlockManifest* block, reader.Get(digest));
    for (const TensorRef& ref : block->tensors) {
      if (counted.insert(ref.tensor).second) summary.parameters += ElementsOf(ref.shape);
    }
  }
  return summary;
}

std::string KindText(const TensorRef* ref) {
  if (ref == nullptr) return "absent";
  return absl::StrCat(kernels::InfoOf(ref->dtype).name, " ", ShapeText(ref->shape));
}

// What differs between two blocks, by attribute and by tensor role.
std::vector<std::string> Differences(const BlockManifest& a, const BlockManifest& b) {
  std::vector<std::string> what;
  if (a.type != b.type) what.push_back(absl::StrCat("type: ", a.type, " / ", b.type));
  std::set<std::string> names;
  for (const auto& [name, value] : a.attributes.values()) names.insert(name);
  for (const auto& [name, value] : b.attributes.values()) names.insert(name);
  for (const std::string& name : names) {
    const auto text = [&name](const Attributes& attributes) -> std::string {
      const auto found = attributes.values().find(name);
      if (found == attributes.values().end()) return "absent";
      Attributes one;
      one.Set(name, found->second);
      const std::string object = JsonObject(one);
      const size_t value = JsonText(name).size() + 2;
      return object.substr(value, object.size() - value - 1);
    };
    if (text(a.attributes) != text(b.attributes)) {
      what.push_back(absl::StrCat(name, ": ", text(a.attributes), " / ", text(b.attributes)));
    }
  }
  std::set<std::string> roles;
  for (const TensorRef& ref : a.tensors) roles.insert(ref.role);
  for (const TensorRef& ref : b.tensors) roles.insert(ref.role);
  for (const std::string& role : roles) {
    const TensorRef* in_a = a.Find(role);
    const TensorRef* in_b = b.Find(role);
    if (in_a != nullptr && in_b != nullptr && in_a->tensor == in_b->tensor) continue;
    const std::string kind_a = KindText(in_a);
    const std::string kind_b = KindText(in_b);
    what.push_back(kind_a == kind_b ? absl::StrCat(role, ": other values, ", kind_a)
                                    : absl::StrCat(role, ": ", kind_a, " / ", kind_b));
  }
  return what;
}

std::vector<std::string> SettingDifferences(const ChainManifest& a, const ChainManifest& b) {
  std::vector<std::string> what;
  const auto compare = [&what](absl::string_view name, const auto& in_a, const auto& in_b) {
    if (in_a != in_b) what.push_back(absl::StrCat(name, ": ", in_a, " / ", in_b));
  };
  compare("architecture", a.architecture, b.architecture);
  compare("width", a.width, b.width);
  compare("vocab", a.vocab, b.vocab);
  compare("max_context", a.max_context, b.max_context);
  if (a.rotary != b.rotary) what.push_back("rotary settings");
  if (a.end_token_ids != b.end_token_ids) {
    what.push_back(absl::StrCat("end_token_ids: ", absl::StrJoin(a.end_token_ids, ","), " / ",
                                absl::StrJoin(b.end_token_ids, ",")));
  }
  std::set<std::string> names;
  for (const auto& [name, digest] : a.assets) names.insert(name);
  for (const auto& [name, digest] : b.assets) names.insert(name);
  for (const std::string& name : names) {
    const auto in_a = a.assets.find(name);
    const auto in_b = b.assets.find(name);
    if (in_a == a.assets.end()) {
      what.push_back(absl::StrCat(name, ": only in ", b.name));
    } else if (in_b == b.assets.end()) {
      what.push_back(absl::StrCat(name, ": only in ", a.name));
    } else if (in_a->second != in_b->second) {
      what.push_back(absl::StrCat(name, ": other content"));
    }
  }
  return what;
}

Status DiffBlocks(const ChainManifest& a, const ChainManifest& b, BlockReader& reader,
                  ChainDiff& diff) {
  for (size_t i = 0; i < std::max(a.blocks.size(), b.blocks.size()); ++i) {
    if (i < a.blocks.size() && i < b.blocks.size() && a.blocks[i] == b.blocks[i]) {
      ++diff.equal_blocks;
      continue;
    }
    DiffLine line;
    line.position = i;
    if (i >= b.blocks.size()) {
      line.kind = DiffLine::Kind::kOnlyInA;
      TESSERA_ASSIGN_OR_RETURN(const BlockManifest* block, reader.Get(a.blocks[i]));
      line.type = block->type;
    } else if (i >= a.blocks.size()) {
      line.kind = DiffLine::Kind::kOnlyInB;
      TESSERA_ASSIGN_OR_RETURN(const BlockManifest* block, reader.Get(b.blocks[i]));
      line.type = block->type;
    } else {
      TESSERA_ASSIGN_OR_RETURN(const BlockManifest* in_a, reader.Get(a.blocks[i]));
      TESSERA_ASSIGN_OR_RETURN(const BlockManifest* in_b, reader.Get(b.blocks[i]));
      line.type = in_a->type;
      line.what = Differences(*in_a, *in_b);
    }
    diff.blocks.push_back(std::move(line));
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<ZooListing> Zoo::List() const {
  BlockReader reader(layout_);
  TESSERA_ASSIGN_OR_RETURN(const Survey survey, SurveyOf(layout_, reader));
  ZooListing listing;
  listing.directory = layout_.root();
  References all;
  for (const Survey::Entry& entry : survey.entries) {
    TESSERA_ASSIGN_OR_RETURN(ChainSummary summary, Summarise(survey, entry, reader));
    listing.summed_bytes += summary.weight_bytes;
    all.tensors.insert(entry.references.tensors.begin(), entry.references.tensors.end());
    listing.chains.push_back(std::move(summary));
  }
  listing.distinct_bytes = all.TensorBytesInAll();
  for (const auto& [digest, bytes] : all.tensors) {
    if (survey.recipes.contains(digest)) listing.made_bytes += bytes;
  }
  return listing;
}

StatusOr<ChainDetails> Zoo::Show(absl::string_view name) const {
  TESSERA_RETURN_IF_ERROR(ReadChain(layout_, name).status());
  BlockReader reader(layout_);
  TESSERA_ASSIGN_OR_RETURN(const Survey survey, SurveyOf(layout_, reader));
  for (const Survey::Entry& entry : survey.entries) {
    if (entry.chain.name != name) continue;
    ChainDetails details;
    details.chain = entry.chain;
    details.revision = RevisionOf(entry.chain);
    TESSERA_ASSIGN_OR_RETURN(details.summary, Summarise(survey, entry, reader));
    for (const Digest& digest : entry.chain.blocks) {
      TESSERA_ASSIGN_OR_RETURN(const BlockManifest* manifest, reader.Get(digest));
      BlockDetails block{digest, *manifest, 0, survey.block_users.at(digest)};
      for (const TensorRef& ref : manifest->tensors) {
        block.bytes += entry.references.tensors.at(ref.tensor);
      }
      details.blocks.push_back(std::move(block));
    }
    return details;
  }
  return ReadChain(layout_, name).status();
}

StatusOr<ChainDiff> Zoo::Diff(absl::string_view a, absl::string_view b) const {
  TESSERA_ASSIGN_OR_RETURN(const ChainManifest chain_a, ReadChain(layout_, a));
  TESSERA_ASSIGN_OR_RETURN(const ChainManifest chain_b, ReadChain(layout_, b));
  BlockReader reader(layout_);
  References in_a;
  References in_b;
  TESSERA_RETURN_IF_ERROR(AddReferences(chain_a, reader, in_a));
  TESSERA_RETURN_IF_ERROR(AddReferences(chain_b, reader, in_b));
  ChainDiff diff;
  diff.a = chain_a.name;
  diff.b = chain_b.name;
  TESSERA_RETURN_IF_ERROR(DiffBlocks(chain_a, chain_b, reader, diff));
  diff.settings = SettingDifferences(chain_a, chain_b);
  for (const auto& [digest, bytes] : in_a.tensors) {
    (in_b.tensors.contains(digest) ? diff.shared_bytes : diff.only_a_bytes) += bytes;
  }
  for (const auto& [digest, bytes] : in_b.tensors) {
    if (!in_a.tensors.contains(digest)) diff.only_b_bytes += bytes;
  }
  return diff;
}

}  // namespace tessera::blockzoo
