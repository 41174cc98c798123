// Zoo::Import: hashes each tensor, writes what the zoo lacks, and publishes the chain last.
#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "blockzoo/import/architecture.h"
#include "blockzoo/import/format.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_objects.h"

namespace tessera::blockzoo {
namespace {

constexpr size_t kHashChunk = 8 << 20;
constexpr const char* kImporterVersion = "1";

std::string BaseName(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

uint64_t BytesInAll(const ChainPlan& plan) {
  uint64_t bytes = 0;
  std::set<std::string> counted;  // a tied tensor has two roles
  for (const BlockPlan& block : plan.blocks) {
    for (const BlockPlan::Part& part : block.tensors) {
      if (counted.insert(part.tensor.name).second) bytes += part.tensor.bytes.size();
    }
  }
  return bytes;
}

// Turns a plan into digests, and into objects when it has a writer.
class BlockStore {
 public:
  BlockStore(const ZooProgress& progress, uint64_t total_bytes)
      : progress_(progress), total_bytes_(total_bytes) {}

  // `writer` null: only the identities are worked out.
  StatusOr<std::vector<Digest>> Store(const ChainPlan& plan, ObjectWriter* writer) {
    std::vector<Digest> blocks;
    for (const BlockPlan& block : plan.blocks) {
      BlockManifest manifest{block.type, block.attributes, {}};
      for (const BlockPlan::Part& part : block.tensors) {
        const Digest digest = IdentityOf(part.tensor);
        if (writer != nullptr) {
          TESSERA_RETURN_IF_ERROR(writer->Put(ObjectKind::kTensor, digest, part.tensor.bytes));
        }
        manifest.tensors.push_back({part.role, digest, part.tensor.dtype, part.tensor.shape});
      }
      std::sort(manifest.tensors.begin(), manifest.tensors.end(),
                [](const TensorRef& a, const TensorRef& b) { return a.role < b.role; });
      blocks.push_back(blockzoo::IdentityOf(manifest));
      if (writer != nullptr) {
        TESSERA_RETURN_IF_ERROR(
            writer->Put(ObjectKind::kBlock, blocks.back(), BytesOf(CanonicalText(manifest))));
      }
    }
    return blocks;
  }

 private:
  // Tied tensors, and a second pass over the same file, are hashed once.
  Digest IdentityOf(const CheckpointTensor& tensor) {
    const auto [known, fresh] = identities_.try_emplace(tensor.name);
    if (fresh) {
      TensorHasher hasher(tensor.dtype, tensor.shape);
      for (size_t begin = 0; begin < tensor.bytes.size(); begin += kHashChunk) {
        hasher.Add(tensor.bytes.subspan(begin, std::min(kHashChunk, tensor.bytes.size() - begin)));
        Report(begin);
      }
      known->second = hasher.Finish();
      done_bytes_ += tensor.bytes.size();
      Report(0);
    }
    return known->second;
  }

  void Report(uint64_t part_bytes) const {
    if (progress_) progress_(done_bytes_ + part_bytes, total_bytes_);
  }

  const ZooProgress& progress_;
  const uint64_t total_bytes_;
  uint64_t done_bytes_ = 0;
  std::map<std::string, Digest> identities_;
};

void AddProvenance(const Checkpoint& checkpoint, const std::string& path, ChainManifest& chain) {
  chain.provenance["source"] = BaseName(path);
  chain.provenance["format"] = checkpoint.format();
  chain.provenance.emplace("importer", kImporterVersion);
  for (const auto& [setting, name] :
       {std::pair("general.name", "model"), std::pair("general.license", "license"),
        std::pair("_name_or_path", "model")}) {
    const StatusOr<std::string> text = checkpoint.settings().Text(setting);
    if (text.ok() && !text->empty()) chain.provenance[name] = text->substr(0, 256);
  }
}

// Everything of the chain but its blocks and its name; the assets' texts go to `assets`.
Status FillChain(const Checkpoint& checkpoint, const std::string& path, ChainManifest& chain,
                 std::map<std::string, std::string>& assets) {
  TESSERA_ASSIGN_OR_RETURN(assets, checkpoint.Assets());
  for (const auto& [name, text] : assets) chain.assets[name] = AssetIdentity(text);
  TESSERA_ASSIGN_OR_RETURN(chain.end_token_ids, checkpoint.EndTokenIds());
  // Ids that the model cannot produce end nothing.
  std::erase_if(chain.end_token_ids, [&chain](uint32_t id) { return id >= chain.vocab; });
  AddProvenance(checkpoint, path, chain);
  return absl::OkStatus();
}

}  // namespace

StatusOr<ImportReport> Zoo::Import(const ImportOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  TESSERA_RETURN_IF_ERROR(CheckChainName(options.name));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                           OpenCheckpoint(options.path));
  TESSERA_ASSIGN_OR_RETURN(const Architecture architecture, FindArchitecture(*checkpoint));
  StatusOr<ChainPlan> cut = architecture.cut(*checkpoint);
  if (!cut.ok()) return Annotate(cut.status(), options.path);
  ChainPlan& plan = *cut;
  plan.chain.name = options.name;
  std::map<std::string, std::string> assets;
  TESSERA_RETURN_IF_ERROR(FillChain(*checkpoint, options.path, plan.chain, assets));

  TESSERA_ASSIGN_OR_RETURN(const FileLock lock,
                           LockForWriting(absl::StrCat("import ", options.name)));
  ImportReport report;
  report.tensor_bytes = BytesInAll(plan);
  BlockStore store(options.progress, report.tensor_bytes);
  NameState state = NameState::kFree;
  if (KindOfPath(layout_.Chain(options.name)) != PathKind::kMissing) {
    // A taken name is settled before anything is written.
    TESSERA_ASSIGN_OR_RETURN(plan.chain.blocks, store.Store(plan, nullptr));
    TESSERA_ASSIGN_OR_RETURN(state, CheckExisting(plan.chain, options.existing));
  }
  ObjectWriter writer(layout_, disk_);
  for (const auto& [name, text] : assets) {
    TESSERA_RETURN_IF_ERROR(
        writer.Put(ObjectKind::kAsset, plan.chain.assets.at(name), BytesOf(text)));
  }
  TESSERA_ASSIGN_OR_RETURN(plan.chain.blocks, store.Store(plan, &writer));
  TESSERA_RETURN_IF_ERROR(writer.Commit());
  if (state != NameState::kSame) TESSERA_RETURN_IF_ERROR(WriteChain(plan.chain));
  using Outcome = ImportReport::Outcome;
  report.outcome = state == NameState::kFree   ? Outcome::kAdded
                   : state == NameState::kSame ? Outcome::kAlreadyThere
                                               : Outcome::kReplaced;
  report.chain = std::move(plan.chain);
  report.new_bytes = writer.new_bytes();
  report.new_objects = writer.new_objects();
  report.shared_bytes = writer.present_bytes();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace tessera::blockzoo
