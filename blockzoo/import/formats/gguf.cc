// GGUF files, versions 2 and 3, whole or split ("NAME-00001-of-00003.gguf").
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "blockzoo/import/format.h"
#include "blockzoo/import/gguf_metadata.h"
#include "blockzoo/zoo_io.h"
#include "blockzoo/zoo_mapping.h"

namespace tessera::blockzoo {
namespace {

struct Member {
  std::string path;
  std::shared_ptr<const MappedFile> mapping;
};

std::string FileName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

class GgufCheckpoint final : public Checkpoint {
 public:
  // `file` has the values of the first member and the tensors of all.
  GgufCheckpoint(std::vector<Member> members, GgufFile file)
      : members_(std::move(members)), file_(std::move(file)), settings_(GgufSettings(file_)) {}

  [[nodiscard]] std::string format() const override { return "gguf"; }

  [[nodiscard]] StatusOr<std::string> architecture() const override {
    return settings_.Text("general.architecture");
  }

  [[nodiscard]] StatusOr<CheckpointTensor> Tensor(absl::string_view name) const override {
    const auto found = file_.tensors.find(std::string_view(name.data(), name.size()));
    if (found != file_.tensors.end()) return found->second;
    return Error(absl::StatusCode::kNotFound,
                 {.what = absl::StrCat("the file has no tensor ", name)});
  }

  [[nodiscard]] std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : file_.tensors) names.push_back(name);
    return names;
  }

  [[nodiscard]] const Attributes& settings() const override { return settings_; }

  [[nodiscard]] StatusOr<std::map<std::string, std::string>> Assets() const override {
    std::map<std::string, std::string> assets;
    TESSERA_ASSIGN_OR_RETURN(std::string vocabulary, GgufVocabularyJson(file_));
    if (!vocabulary.empty()) assets["gguf_vocabulary.json"] = std::move(vocabulary);
    TESSERA_ASSIGN_OR_RETURN(std::string chat_template, GgufChatTemplate(file_));
    if (!chat_template.empty()) assets["chat_template"] = std::move(chat_template);
    return assets;
  }

  [[nodiscard]] StatusOr<std::vector<CheckpointFile>> Files() const override {
    std::vector<CheckpointFile> files;
    for (const Member& member : members_) {
      files.push_back({FileName(member.path), member.mapping->bytes()});
    }
    return files;
  }

  [[nodiscard]] StatusOr<std::vector<uint32_t>> EndTokenIds() const override {
    return GgufEndTokenIds(file_);
  }

 private:
  std::vector<Member> members_;
  GgufFile file_;
  Attributes settings_;
};

bool IsGguf(const std::string& path) {
  if (KindOfPath(path) != PathKind::kFile) return false;
  if (absl::EndsWith(path, ".gguf")) return true;
  const StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
  return file.ok() && (*file)->bytes().size() >= 4 &&
         absl::string_view(reinterpret_cast<const char*>((*file)->bytes().data()), 4) == "GGUF";
}

Status BadSplit(const std::string& path, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = "the split GGUF file is not valid",
                .where = path,
                .why = std::string(why),
                .fix = "fetch all parts of one model into one directory, under their own names"});
}

// What a part says about the whole; nullopt for a file that is whole by itself.
struct Split {
  int64_t number = 0;  // from 0
  int64_t count = 0;
  int64_t tensors = 0;
};
StatusOr<std::optional<Split>> SplitOf(const GgufFile& file, const std::string& path) {
  const auto integer = [&file](absl::string_view key) {
    const GgufValue* const value = file.Find(key);
    return value == nullptr ? std::optional<int64_t>() : value->Integer();
  };
  if (file.Find("split.count") == nullptr) return std::optional<Split>();
  const std::optional<int64_t> count = integer("split.count");
  const std::optional<int64_t> number = integer("split.no");
  const std::optional<int64_t> tensors = integer("split.tensors.count");
  if (!count.has_value() || *count < 0 || *count > GgufLimits::kSplits) {
    return BadSplit(path, absl::StrCat("split.count must be a number up to ", GgufLimits::kSplits));
  }
  if (*count <= 1) return std::optional<Split>();
  if (!number.has_value() || *number < 0 || *number >= *count) {
    return BadSplit(path, absl::StrCat("split.no must be a number from 0 to ", *count - 1));
  }
  if (!tensors.has_value() || *tensors < 0) {
    return BadSplit(path, "split.tensors.count must be a number");
  }
  return std::optional<Split>(Split{*number, *count, *tensors});
}

// The paths of all parts, from the path of one.
StatusOr<std::vector<std::string>> PathsOf(const std::string& path, const Split& split) {
  const std::string end = absl::StrFormat("-%05d-of-%05d.gguf", split.number + 1, split.count);
  if (!absl::EndsWith(path, end)) {
    return BadSplit(path, absl::StrCat("it is part ", split.number + 1, " of ", split.count,
                                       ", so its name must end with ", end));
  }
  const std::string stem = path.substr(0, path.size() - end.size());
  std::vector<std::string> paths, missing;
  for (int64_t i = 1; i <= split.count; ++i) {
    paths.push_back(absl::StrFormat("%s-%05d-of-%05d.gguf", stem, i, split.count));
    if (KindOfPath(paths.back()) != PathKind::kFile) missing.push_back(FileName(paths.back()));
  }
  if (missing.empty()) return paths;
  constexpr size_t kNamed = 5;
  const size_t unnamed = missing.size() > kNamed ? missing.size() - kNamed : 0;
  missing.resize(missing.size() - unnamed);
  return BadSplit(path, absl::StrCat("missing beside it: ", absl::StrJoin(missing, ", "),
                                     unnamed > 0 ? absl::StrCat(" and ", unnamed, " more") : ""));
}

StatusOr<GgufFile> OpenMember(const std::string& path, std::vector<Member>& members) {
  TESSERA_ASSIGN_OR_RETURN(auto mapping, MappedFile::Open(path));
  StatusOr<GgufFile> file = ParseGguf(mapping->bytes());
  if (!file.ok()) return Annotate(file.status(), path);
  members.push_back({path, std::move(mapping)});
  return file;
}

StatusOr<std::unique_ptr<Checkpoint>> OpenSplit(const std::string& path, const Split& split) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> paths, PathsOf(path, split));
  std::vector<Member> members;
  GgufFile whole;
  for (size_t i = 0; i < paths.size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(GgufFile file, OpenMember(paths[i], members));
    TESSERA_ASSIGN_OR_RETURN(const std::optional<Split> said, SplitOf(file, paths[i]));
    if (!said.has_value() || said->number != static_cast<int64_t>(i) ||
        said->count != split.count || said->tensors != split.tensors) {
      return BadSplit(paths[i], absl::StrCat("its split.no, split.count and split.tensors.count "
                                             "must be ",
                                             i, ", ", split.count, " and ", split.tensors));
    }
    auto tensors = std::move(file.tensors);
    if (i == 0) whole = std::move(file);
    for (auto& [name, tensor] : tensors) {
      if (!whole.tensors.emplace(name, std::move(tensor)).second) {
        return BadSplit(paths[i], absl::StrCat("the tensor ", name, " is in an earlier part too"));
      }
    }
  }
  if (whole.tensors.size() != static_cast<uint64_t>(split.tensors)) {
    return BadSplit(path, absl::StrCat("split.tensors.count is ", split.tensors,
                                       ", the parts have ", whole.tensors.size()));
  }
  return std::make_unique<GgufCheckpoint>(std::move(members), std::move(whole));
}

StatusOr<std::unique_ptr<Checkpoint>> OpenGguf(const std::string& path) {
  std::vector<Member> members;
  TESSERA_ASSIGN_OR_RETURN(GgufFile file, OpenMember(path, members));
  TESSERA_ASSIGN_OR_RETURN(const std::optional<Split> split, SplitOf(file, path));
  if (split.has_value()) return OpenSplit(path, *split);
  return std::make_unique<GgufCheckpoint>(std::move(members), std::move(file));
}

}  // namespace

void Register_gguf(FormatRegistry& registry) {
  registry.Add({.name = "gguf", .recognises = IsGguf, .open = OpenGguf});
}

}  // namespace tessera::blockzoo
