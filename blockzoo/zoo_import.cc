// Zoo::Import: hashes each tensor, writes what the zoo lacks, and publishes the chain last.
#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "blockzoo/export/source_record.h"
#include "blockzoo/import/architecture.h"
#include "blockzoo/import/format.h"
#include "blockzoo/import/tensor_store.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_objects.h"

namespace tessera::blockzoo {
namespace {

constexpr const char* kImporterVersion = "1";

std::string BaseName(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

// Names the checkpoint in what is wrong with it; the disk's errors name their own paths.
Status InFile(const std::string& path, const Status& status) {
  const bool of_file = absl::IsInvalidArgument(status) || absl::IsUnimplemented(status);
  return of_file ? Annotate(status, path) : status;
}

// The blocks of a plan whose tensors have identities; into `writer` unless that is null.
StatusOr<std::vector<Digest>> StoreBlocks(const ChainPlan& plan, const TensorStore& tensors,
                                          ObjectWriter* writer) {
  std::vector<Digest> blocks;
  for (const BlockPlan& block : plan.blocks) {
    BlockManifest manifest{block.type, block.attributes, {}};
    for (const BlockPlan::Part& part : block.tensors) {
      manifest.tensors.push_back(
          {part.role, tensors.IdentityOf(part.tensor), part.tensor.dtype, part.tensor.shape});
    }
    std::sort(manifest.tensors.begin(), manifest.tensors.end(),
              [](const TensorRef& a, const TensorRef& b) { return a.role < b.role; });
    blocks.push_back(IdentityOf(manifest));
    if (writer != nullptr) {
      TESSERA_RETURN_IF_ERROR(
          writer->Put(ObjectKind::kBlock, blocks.back(), BytesOf(CanonicalText(manifest))));
    }
  }
  return blocks;
}

// Tensors that the chain ignores, such as the copy of a tied one, may be stored for another.
void AddIgnored(const Checkpoint& checkpoint, SourceRecorder& recorder,
                const std::set<Digest>& stored) {
  constexpr uint64_t kWorthHashing = 64 << 10;
  for (const std::string& name : checkpoint.TensorNames()) {
    const StatusOr<CheckpointTensor> tensor = checkpoint.Tensor(name);
    if (!tensor.ok() || tensor->bytes.size() < kWorthHashing || !recorder.Lacks(tensor->bytes)) {
      continue;
    }
    TensorHasher hasher(tensor->dtype, tensor->shape);
    hasher.Add(tensor->bytes);
    const Digest digest = hasher.Finish();
    if (stored.contains(digest)) recorder.Add(*tensor, digest);
  }
}

// Stores what an export needs and names it in the chain; where that is too much, the provenance
// says why.
Status StoreSource(const Checkpoint& checkpoint, const ChainPlan& plan, const TensorStore& tensors,
                   ObjectWriter& writer, ChainManifest& chain) {
  TESSERA_ASSIGN_OR_RETURN(std::vector<CheckpointFile> files, checkpoint.Files());
  SourceRecorder recorder(checkpoint.format(), std::move(files));
  std::set<Digest> stored;
  for (const BlockPlan& block : plan.blocks) {
    for (const BlockPlan::Part& part : block.tensors) {
      const Digest& digest = tensors.IdentityOf(part.tensor);
      recorder.Add(part.tensor, digest);
      stored.insert(digest);
    }
  }
  AddIgnored(checkpoint, recorder, stored);
  StatusOr<SourceRecorder::Recorded> recorded = std::move(recorder).Finish();
  if (!recorded.ok()) {
    chain.provenance["export"] = PartsOf(recorded.status()).why;
    return absl::OkStatus();
  }
  recorded->literals[kSourceRecordName] = TextOf(recorded->record);
  for (const auto& [name, text] : recorded->literals) {
    const Digest digest = AssetIdentity(text);
    TESSERA_RETURN_IF_ERROR(writer.Put(ObjectKind::kAsset, digest, BytesOf(text)));
    chain.source[name] = digest;
  }
  return absl::OkStatus();
}

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
  TESSERA_RETURN_IF_ERROR(
      InFile(options.path, FillChain(*checkpoint, options.path, plan.chain, assets)));

  TESSERA_ASSIGN_OR_RETURN(const FileLock lock,
                           LockForWriting(absl::StrCat("import ", options.name)));
  ImportReport report;
  TensorStore tensors(plan, options_.import_threads, options.progress);
  report.tensor_bytes = tensors.total_bytes();
  NameState state = NameState::kFree;
  if (KindOfPath(layout_.Chain(options.name)) != PathKind::kMissing) {
    // A taken name is settled before anything is written.
    TESSERA_RETURN_IF_ERROR(InFile(options.path, tensors.Run(nullptr)));
    TESSERA_ASSIGN_OR_RETURN(plan.chain.blocks, StoreBlocks(plan, tensors, nullptr));
    TESSERA_ASSIGN_OR_RETURN(state, CheckExisting(plan.chain, options.existing));
  }
  ObjectWriter writer(layout_, disk_);
  for (const auto& [name, text] : assets) {
    TESSERA_RETURN_IF_ERROR(
        writer.Put(ObjectKind::kAsset, plan.chain.assets.at(name), BytesOf(text)));
  }
  TESSERA_RETURN_IF_ERROR(InFile(options.path, tensors.Run(&writer)));
  TESSERA_ASSIGN_OR_RETURN(plan.chain.blocks, StoreBlocks(plan, tensors, &writer));
  TESSERA_RETURN_IF_ERROR(StoreSource(*checkpoint, plan, tensors, writer, plan.chain));
  TESSERA_RETURN_IF_ERROR(writer.Commit());
  // The same model from other files, or one that was imported before sources were kept.
  const bool same =
      state == NameState::kSame &&
      ReadChain(layout_, options.name).value_or(ChainManifest()).source == plan.chain.source;
  if (!same) TESSERA_RETURN_IF_ERROR(WriteChain(plan.chain));
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
