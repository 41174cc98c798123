// Zoo::Export: the files that a chain was imported from, byte for byte.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/export/source_record.h"
#include "blockzoo/import/code_arrangement.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_mapping.h"
#include "blockzoo/zoo_objects.h"
#include "kernels/weight_planes.h"

namespace tessera::blockzoo {
namespace {

constexpr uint64_t kChunkBytes = 4 << 20;

const char* NameOf(ExportFormat format) {
  return format == ExportFormat::kGguf ? "gguf" : "huggingface";
}

// Why a chain cannot be exported, and what helps.
Status NoSource(const ChainManifest& chain) {
  const auto entry = [&chain](const char* name) {
    const auto found = chain.provenance.find(name);
    return found == chain.provenance.end() ? std::string() : found->second;
  };
  ErrorParts parts{.what = absl::StrCat("the chain ", chain.name, " cannot be exported")};
  if (!entry("export").empty()) {
    parts.why = entry("export");
    parts.fix = "keep the files that it was imported from";
  } else if (!entry("quantized_from").empty() || entry("format") == "composed" ||
             absl::StartsWith(entry("format"), "synthetic")) {
    parts.why = "it was made in this zoo, not imported from files";
    parts.fix = "export the chains that it was made from";
  } else {
    parts.why = "it was imported before the zoo kept what an export needs";
    parts.fix = "import the same files once more under the same name: no weights are written";
  }
  return Error(absl::StatusCode::kFailedPrecondition, parts);
}

// What is there and may not be replaced.
Status CheckTarget(const ExportOptions& options) {
  const PathKind kind = KindOfPath(options.path);
  if (kind == PathKind::kMissing) return absl::OkStatus();
  ErrorParts parts{.what = "the export's path is taken", .where = options.path};
  if (options.existing == ExistingFiles::kKeep) {
    parts.fix = "name another path, or replace what is there with --force";
    return Error(absl::StatusCode::kAlreadyExists, parts);
  }
  if (kind == PathKind::kFile) return absl::OkStatus();
  // A slip of the hand must not remove a directory of something else.
  std::error_code error;
  bool model = false;
  for (const auto& entry : std::filesystem::directory_iterator(options.path, error)) {
    const std::string name = entry.path().filename().string();
    model = model || name == "config.json" || absl::EndsWith(name, ".gguf");
    if (entry.is_regular_file(error)) continue;
    parts.why = absl::StrCat("it holds ", name, ", which is no file of a model");
    parts.fix = "name another path, or remove the directory yourself";
    return Error(absl::StatusCode::kAlreadyExists, parts);
  }
  if (kind == PathKind::kDirectory && model) return absl::OkStatus();
  parts.why = "it is not a directory of a model";
  parts.fix = "name another path, or remove it yourself";
  return Error(absl::StatusCode::kAlreadyExists, parts);
}

// Writes the files of one chain.
class Exporter {
 public:
  Exporter(const ZooLayout& layout, const DiskWriter& disk, const ExportOptions& options)
      : layout_(layout), disk_(disk), options_(options) {}

  StatusOr<ExportReport> Run(const ChainManifest& chain) {
    TESSERA_ASSIGN_OR_RETURN(record_, ReadRecord(chain));
    if (record_.format != NameOf(options_.format)) {
      return Error(
          absl::StatusCode::kUnimplemented,
          {.what = absl::StrCat("exporting to ", NameOf(options_.format),
                                " what was imported from ", record_.format, " is not supported"),
           .where = absl::StrCat("chain ", chain.name),
           .why = "an export gives the imported files back, byte for byte",
           .fix =
               absl::StrCat("export it with --format ", record_.format == "gguf" ? "gguf" : "hf")});
    }
    ExportReport report{.path = options_.path, .format = record_.format};
    for (const auto& [name, digest] : chain.source) {
      if (name == kSourceRecordName) continue;
      report.files.push_back(name);
      TESSERA_ASSIGN_OR_RETURN(const uint64_t literal,
                               FileSize(layout_.Object(ObjectKind::kAsset, digest)));
      total_bytes_ += literal;
      for (const SourceSegment& segment : record_.files[name]) total_bytes_ += segment.bytes;
    }
    report.bytes = total_bytes_;
    const std::string parent = ParentOf(options_.path);
    TESSERA_RETURN_IF_ERROR(CheckSpace(parent));
    TESSERA_RETURN_IF_ERROR(WriteAll(chain, report.files, parent));
    if (IsSingle(report.files)) report.files.clear();
    return report;
  }

 private:
  static std::string ParentOf(const std::string& path) {
    const std::string parent = std::filesystem::path(path).parent_path().string();
    return parent.empty() ? "." : parent;
  }

  Status CheckSpace(const std::string& parent) const {
    std::error_code error;
    const std::filesystem::space_info space = std::filesystem::space(parent, error);
    if (error) return SystemError("cannot write to", parent, error.value());
    if (space.available >= total_bytes_) return absl::OkStatus();
    return Error(absl::StatusCode::kResourceExhausted,
                 {.what = "not enough free space for the export",
                  .where = parent,
                  .why = absl::StrCat(BytesText(total_bytes_), " to write, ",
                                      BytesText(space.available), " free"),
                  .fix = "free space, or name a path on another file system"});
  }

  StatusOr<SourceRecord> ReadRecord(const ChainManifest& chain) const {
    const auto found = chain.source.find(kSourceRecordName);
    if (found == chain.source.end()) return NoSource(chain);
    TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadAsset(layout_, found->second));
    TESSERA_ASSIGN_OR_RETURN(SourceRecord record, ParseSourceRecord(text));
    for (const auto& [name, digest] : chain.source) {
      if (name == kSourceRecordName || IsPlainFileName(name)) continue;
      return Error(absl::StatusCode::kDataLoss,
                   {.what = absl::StrCat("the chain ", chain.name, " is damaged"),
                    .where = "source",
                    .why = "a name is not a plain file name"});
    }
    return record;
  }

  // A GGUF file is a file of its own; the rest are directories.
  bool IsSingle(const std::vector<std::string>& files) const {
    return options_.format == ExportFormat::kGguf && files.size() == 1;
  }

  // Beside their place in a directory of their own, then moved there.
  Status WriteAll(const ChainManifest& chain, const std::vector<std::string>& files,
                  const std::string& parent) {
    const std::string stage = absl::StrCat(parent, "/.tessera-export.", getpid());
    std::error_code error;
    std::filesystem::remove_all(stage, error);
    Status status = disk_.MakeDirectory(stage);
    for (const std::string& name : files) {
      if (status.ok()) status = WriteFile(name, chain.source.at(name), stage);
    }
    if (status.ok()) status = disk_.SyncDirectory(stage);
    if (status.ok()) status = CheckTarget(options_);
    if (status.ok()) status = MoveInto(IsSingle(files) ? stage + "/" + files[0] : stage);
    if (status.ok()) status = disk_.SyncDirectory(parent);
    std::filesystem::remove_all(stage, error);
    return status;
  }

  // A directory that is there changes places with `made`.
  Status MoveInto(const std::string& made) const {
    if (KindOfPath(options_.path) != PathKind::kDirectory) {
      return disk_.Rename(made, options_.path);
    }
    TESSERA_RETURN_IF_ERROR(disk_.Before("rename", options_.path));
    if (renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, options_.path.c_str(), RENAME_EXCHANGE) != 0) {
      return SystemError("cannot replace", options_.path, errno);
    }
    return absl::OkStatus();
  }

  Status WriteFile(const std::string& name, const Digest& literal_digest,
                   const std::string& directory) {
    TESSERA_ASSIGN_OR_RETURN(const std::string literal, ReadAsset(layout_, literal_digest));
    std::span<const std::byte> left = BytesOf(literal);
    TESSERA_ASSIGN_OR_RETURN(TempFile file, TempFile::Create(disk_, directory));
    for (const SourceSegment& segment : record_.files[name]) {
      if (segment.literal_bytes > left.size()) {
        return Error(absl::StatusCode::kDataLoss,
                     {.what = absl::StrCat("the record of ", name, " is damaged"),
                      .why = "its literal bytes are fewer than its segments need"});
      }
      TESSERA_RETURN_IF_ERROR(Append(file, left.first(segment.literal_bytes)));
      left = left.subspan(segment.literal_bytes);
      TESSERA_RETURN_IF_ERROR(AppendTensor(file, segment));
    }
    TESSERA_RETURN_IF_ERROR(Append(file, left));
    TESSERA_RETURN_IF_ERROR(file.Sync());
    return file.Publish(absl::StrCat(directory, "/", name));
  }

  Status AppendTensor(TempFile& file, const SourceSegment& segment) {
    const TensorRef& ref = segment.tensor;
    const std::string path = layout_.Object(ObjectKind::kTensor, ref.tensor);
    TESSERA_ASSIGN_OR_RETURN(const auto mapping, MappedFile::Open(path));
    const std::span<const std::byte> bytes = mapping->bytes();
    TESSERA_RETURN_IF_ERROR(CheckTensor(ref, path, bytes));
    if (segment.arrangement.empty()) {
      return Append(file, bytes.subspan(segment.offset, segment.bytes));
    }
    TESSERA_ASSIGN_OR_RETURN(const auto arranged, MappedFile::Anonymous(segment.bytes));
    TESSERA_RETURN_IF_ERROR(ArrangeCodes(segment.arrangement, ref.shape[0], ref.shape[1],
                                         bytes.first(segment.bytes), arranged->writable()));
    return Append(file, arranged->bytes());
  }

  // Once for each tensor.
  Status CheckTensor(const TensorRef& ref, const std::string& path,
                     std::span<const std::byte> bytes) {
    if (!checked_.insert(ref.tensor).second) return absl::OkStatus();
    TESSERA_ASSIGN_OR_RETURN(const uint64_t expected, TensorBytes(ref.dtype, ref.shape));
    TensorHasher hasher(ref.dtype, ref.shape);
    hasher.Add(bytes);
    if (bytes.size() == expected && hasher.Finish() == ref.tensor) return absl::OkStatus();
    return Error(absl::StatusCode::kDataLoss,
                 {.what = "a tensor of the zoo is damaged",
                  .where = path,
                  .why = "its content does not hash to its name",
                  .fix = "remove that file and import the model again: only it is written"});
  }

  Status Append(TempFile& file, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto chunk = bytes.first(std::min<uint64_t>(kChunkBytes, bytes.size()));
      TESSERA_RETURN_IF_ERROR(file.Append(chunk));
      bytes = bytes.subspan(chunk.size());
      done_bytes_ += chunk.size();
      if (options_.progress) options_.progress(done_bytes_, total_bytes_);
    }
    return absl::OkStatus();
  }

  const ZooLayout& layout_;
  const DiskWriter& disk_;
  const ExportOptions& options_;
  SourceRecord record_;
  std::set<Digest> checked_;
  uint64_t done_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

}  // namespace

StatusOr<ExportReport> Zoo::Export(const ExportOptions& options) const {
  const auto start = std::chrono::steady_clock::now();
  ExportOptions plain = options;
  while (plain.path.size() > 1 && plain.path.back() == '/') plain.path.pop_back();
  TESSERA_ASSIGN_OR_RETURN(const ChainManifest chain, ReadChain(layout_, plain.chain));
  TESSERA_RETURN_IF_ERROR(CheckTarget(plain));
  TESSERA_ASSIGN_OR_RETURN(ExportReport report, Exporter(layout_, disk_, plain).Run(chain));
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace tessera::blockzoo
