#include "blockzoo/zoo_layout.h"

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

constexpr uint64_t kMaxSettingsBytes = 1 << 16;

bool NameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

Status CheckName(absl::string_view what, absl::string_view name, absl::string_view more) {
  std::string why;
  if (name.empty() || name.size() > 128) {
    why = absl::StrCat("it has ", name.size(), " characters, allowed 1 to 128");
  } else if (name[0] == '.') {
    why = "it starts with a dot";
  } else {
    for (const char c : name) {
      if (!NameCharacter(c) && !absl::StrContains(more, c)) {
        why = absl::StrCat("only A-Z a-z 0-9 . _ - ", more, " are allowed");
      }
    }
  }
  if (why.empty()) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("the ", what, " name is not allowed"), .why = why});
}

// Makes every missing directory of `path`.
Status MakeDirectories(const DiskWriter& disk, const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    TESSERA_RETURN_IF_ERROR(disk.MakeDirectory(path.substr(0, slash)));
  }
  return disk.MakeDirectory(path);
}

}  // namespace

const char* NameOf(ObjectKind kind) {
  static constexpr const char* kNames[] = {"tensor", "block", "asset", "recipe"};
  return kNames[static_cast<size_t>(kind)];
}

std::string ZooLayout::Objects(ObjectKind kind) const {
  return absl::StrCat(root_, "/objects/", NameOf(kind), "s");
}

std::string ZooLayout::ObjectDirectory(ObjectKind kind, const Digest& digest) const {
  return absl::StrCat(Objects(kind), "/", digest.Hex().substr(0, 2));
}

std::string ZooLayout::Object(ObjectKind kind, const Digest& digest) const {
  return absl::StrCat(ObjectDirectory(kind, digest), "/", digest.Hex());
}

std::string ZooLayout::Chain(absl::string_view name) const {
  return absl::StrCat(Chains(), "/", name, ".json");
}

std::string ZooLayout::DerivedDirectory(absl::string_view transform) const {
  return absl::StrCat(Derived(), "/", transform);
}

std::string ZooLayout::DerivedFile(absl::string_view transform, const Digest& tensor) const {
  return absl::StrCat(DerivedDirectory(transform), "/", tensor.Hex());
}

Status ZooLayout::Create(const DiskWriter& disk) const {
  if (KindOfPath(Settings()) == PathKind::kMissing) {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(root_));
    for (const std::string& name : names) {
      // A creation that was cut short leaves only tmp/.
      if (name == "tmp") continue;
      // Another process that makes the zoo at this moment was faster.
      if (KindOfPath(Settings()) != PathKind::kMissing) break;
      return Error(absl::StatusCode::kFailedPrecondition,
                   {.what = "the directory is not a zoo and not empty",
                    .where = root_,
                    .why = absl::StrCat("it holds ", name, " and no zoo.json"),
                    .fix = "name an empty or new directory"});
    }
    TESSERA_RETURN_IF_ERROR(MakeDirectories(disk, root_));
    TESSERA_RETURN_IF_ERROR(disk.MakeDirectory(Temporary()));
    const std::string text =
        absl::StrCat("{\"format\":", kZooFormat, ",\"kind\":\"tessera block zoo\"}\n");
    TESSERA_RETURN_IF_ERROR(ReplaceFile(disk, Temporary(), Settings(), text));
  }
  for (const std::string& path :
       {Temporary(), Chains(), Pins(), Derived(), root_ + "/objects", Objects(ObjectKind::kTensor),
        Objects(ObjectKind::kBlock), Objects(ObjectKind::kAsset), Objects(ObjectKind::kRecipe)}) {
    TESSERA_RETURN_IF_ERROR(disk.MakeDirectory(path));
  }
  return absl::OkStatus();
}

Status ZooLayout::CheckVersion() const {
  StatusOr<std::string> text = ReadWholeFile(Settings(), kMaxSettingsBytes);
  if (!text.ok() && absl::IsNotFound(text.status())) {
    // A creation that was cut short: nothing is in it yet.
    if (KindOfPath(root_) == PathKind::kDirectory) {
      TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(root_));
      if (std::all_of(names.begin(), names.end(),
                      [](const std::string& name) { return name == "tmp"; })) {
        return absl::OkStatus();
      }
      text = ReadWholeFile(Settings(), kMaxSettingsBytes);  // made since, perhaps
    }
  }
  if (!text.ok() && absl::IsNotFound(text.status())) {
    return Error(absl::StatusCode::kNotFound,
                 {.what = "there is no zoo here",
                  .where = root_,
                  .why = "zoo.json is missing",
                  .fix = "check the path, or make one with `tessera zoo import`"});
  }
  if (!text.ok()) return text.status();
  const nlohmann::json object = nlohmann::json::parse(*text, nullptr, false);
  if (!object.is_object() || !object.contains("format") || !object["format"].is_number_unsigned()) {
    return Error(absl::StatusCode::kDataLoss,
                 {.what = "zoo.json is not readable",
                  .where = Settings(),
                  .why = "there is no format number in it",
                  .fix = absl::StrCat("restore it: {\"format\":", kZooFormat,
                                      ",\"kind\":\"tessera block zoo\"}")});
  }
  const uint64_t format = object["format"].get<uint64_t>();
  if (format > kZooFormat) {
    return Error(
        absl::StatusCode::kFailedPrecondition,
        {.what = "the zoo is newer than this program",
         .where = Settings(),
         .why = absl::StrCat("its format is ", format, ", this program knows up to ", kZooFormat),
         .fix = "use the newer tessera, or import into another directory"});
  }
  if (format == 0) {
    return Error(absl::StatusCode::kDataLoss,
                 {.what = "the zoo's format number is not valid", .where = Settings()});
  }
  return absl::OkStatus();
}

Status CheckChainName(absl::string_view name) { return CheckName("chain", name, ":"); }

Status CheckTransformName(absl::string_view name) { return CheckName("transform", name, ""); }

StatusOr<std::vector<Digest>> ListObjects(const ZooLayout& layout, ObjectKind kind,
                                          std::vector<std::string>& strangers) {
  std::vector<Digest> digests;
  const std::string root = layout.Objects(kind);
  TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> shards, ListDirectory(root));
  for (const std::string& shard : shards) {
    const std::string directory = absl::StrCat(root, "/", shard);
    if (KindOfPath(directory) != PathKind::kDirectory) {
      strangers.push_back(directory);
      continue;
    }
    TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory));
    for (const std::string& name : names) {
      const StatusOr<Digest> digest = Digest::FromHex(name);
      if (digest.ok() && layout.Object(kind, *digest) == absl::StrCat(directory, "/", name)) {
        digests.push_back(*digest);
      } else {
        strangers.push_back(absl::StrCat(directory, "/", name));
      }
    }
  }
  return digests;
}

}  // namespace tessera::blockzoo
