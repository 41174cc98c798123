#include "blockzoo/export/source_record.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "blockzoo/zoo_io.h"
#include "kernels/weight_planes.h"

namespace tessera::blockzoo {
namespace {

using nlohmann::json;

// Literal bytes of all files together: headers with their vocabularies, and of the rest a share.
constexpr uint64_t kLiteralBytes = 64 << 20;
constexpr uint64_t kLiteralShare = 8;
constexpr uint64_t kVersion = 1;

Status Bad(absl::string_view where, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = "the record of the imported files is not valid",
                .where = std::string(where),
                .why = std::string(why)});
}

json JsonOf(const SourceSegment& segment) {
  json out{{"literal", segment.literal_bytes},
           {"tensor", segment.tensor.tensor.Hex()},
           {"dtype", kernels::InfoOf(segment.tensor.dtype).name},
           {"shape", segment.tensor.shape},
           {"offset", segment.offset},
           {"bytes", segment.bytes}};
  if (!segment.arrangement.empty()) out["arrangement"] = segment.arrangement;
  return out;
}

StatusOr<uint64_t> Count(const json& object, const char* field, const std::string& file) {
  const auto found = object.find(field);
  if (found == object.end() || !found->is_number_unsigned()) {
    return Bad(file, absl::StrCat(field, " must be a whole number"));
  }
  return found->get<uint64_t>();
}

StatusOr<std::string> Text(const json& object, const char* field, const std::string& file) {
  const auto found = object.find(field);
  if (found == object.end() || !found->is_string()) {
    return Bad(file, absl::StrCat(field, " must be text"));
  }
  return found->get<std::string>();
}

StatusOr<SourceSegment> SegmentOf(const json& object, const std::string& file) {
  if (!object.is_object()) return Bad(file, "a segment must be an object");
  SourceSegment segment;
  TESSERA_ASSIGN_OR_RETURN(segment.literal_bytes, Count(object, "literal", file));
  TESSERA_ASSIGN_OR_RETURN(segment.offset, Count(object, "offset", file));
  TESSERA_ASSIGN_OR_RETURN(segment.bytes, Count(object, "bytes", file));
  TESSERA_ASSIGN_OR_RETURN(const std::string digest, Text(object, "tensor", file));
  TESSERA_ASSIGN_OR_RETURN(segment.tensor.tensor, Digest::FromHex(digest));
  TESSERA_ASSIGN_OR_RETURN(const std::string dtype, Text(object, "dtype", file));
  const auto known = kernels::DTypeFromName(dtype);
  if (!known.has_value()) return Bad(file, absl::StrCat("there is no element type ", dtype));
  segment.tensor.dtype = *known;
  const auto shape = object.find("shape");
  if (shape == object.end() || !shape->is_array()) return Bad(file, "shape must be a list");
  for (const json& dimension : *shape) {
    if (!dimension.is_number_unsigned()) return Bad(file, "shape must hold whole numbers");
    segment.tensor.shape.push_back(dimension.get<uint64_t>());
  }
  if (object.contains("arrangement")) {
    TESSERA_ASSIGN_OR_RETURN(segment.arrangement, Text(object, "arrangement", file));
  }
  TESSERA_ASSIGN_OR_RETURN(uint64_t bytes, TensorBytes(segment.tensor.dtype, segment.tensor.shape));
  if (!segment.arrangement.empty()) {
    if (!kernels::HasPlanes(segment.tensor.dtype)) return Bad(file, "only codes are arranged");
    bytes =
        kernels::PlanesOf(segment.tensor.dtype, segment.tensor.shape[0], segment.tensor.shape[1])
            .codes_bytes;
    if (segment.offset != 0 || segment.bytes != bytes) {
      return Bad(file, "an arranged segment must have all codes");
    }
  }
  if (segment.offset > bytes || segment.bytes > bytes - segment.offset) {
    return Bad(file, absl::StrCat("a segment [", segment.offset, ", + ", segment.bytes,
                                  ") leaves its tensor of ", bytes, " bytes"));
  }
  return segment;
}

}  // namespace

bool IsPlainFileName(absl::string_view name) {
  if (name.empty() || name.size() > 255 || name[0] == '.') return false;
  for (const char c : name) {
    if (c == '/' || static_cast<unsigned char>(c) < ' ') return false;
  }
  return true;
}

std::string TextOf(const SourceRecord& record) {
  json files = json::object();
  for (const auto& [name, segments] : record.files) {
    json list = json::array();
    for (const SourceSegment& segment : segments) list.push_back(JsonOf(segment));
    files[name] = std::move(list);
  }
  return json{{"version", kVersion}, {"format", record.format}, {"files", std::move(files)}}.dump(
      -1, ' ', false, json::error_handler_t::replace);
}

StatusOr<SourceRecord> ParseSourceRecord(absl::string_view text) {
  const json object = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return Bad("", "it is not a JSON object");
  TESSERA_ASSIGN_OR_RETURN(const uint64_t version, Count(object, "version", "version"));
  if (version != kVersion) return Bad("version", absl::StrCat("it is ", version, ", known is 1"));
  SourceRecord record;
  TESSERA_ASSIGN_OR_RETURN(record.format, Text(object, "format", "format"));
  const auto files = object.find("files");
  if (files == object.end() || !files->is_object()) return Bad("files", "it must be an object");
  for (const auto& [name, list] : files->items()) {
    if (!IsPlainFileName(name)) return Bad("files", "a name is not a plain file name");
    if (!list.is_array()) return Bad(name, "its segments must be a list");
    for (const json& entry : list) {
      TESSERA_ASSIGN_OR_RETURN(SourceSegment segment, SegmentOf(entry, name));
      record.files[name].push_back(std::move(segment));
    }
  }
  return record;
}

void SourceRecorder::AddSpan(std::span<const std::byte> bytes, SourceSegment segment) {
  segment.bytes = bytes.size();
  found_.emplace(bytes.data(), std::move(segment));
}

void SourceRecorder::Add(const CheckpointTensor& tensor, const Digest& digest) {
  const TensorRef ref{"", digest, tensor.dtype, tensor.shape};
  if (!tensor.bytes.empty()) AddSpan(tensor.bytes, {.tensor = ref});
  for (const CheckpointTensor::Origin& origin : tensor.origins) {
    AddSpan(origin.file_bytes,
            {.tensor = ref, .offset = origin.offset, .arrangement = origin.arrangement});
  }
}

bool SourceRecorder::Lacks(std::span<const std::byte> bytes) const {
  const auto found = found_.find(bytes.data());
  return found == found_.end() || found->second.bytes < bytes.size();
}

StatusOr<SourceRecorder::Recorded> SourceRecorder::Finish() && {
  uint64_t file_bytes = 0, literal_bytes = 0;
  Recorded recorded{.record = std::move(record_)};
  std::map<std::string, std::vector<std::span<const std::byte>>> literals;
  for (const CheckpointFile& file : files_) {
    const std::byte* at = file.bytes.data();
    const std::byte* const end = at + file.bytes.size();
    file_bytes += file.bytes.size();
    literals[file.name];
    for (auto next = found_.lower_bound(at); next != found_.end() && next->first < end; ++next) {
      SourceSegment& segment = next->second;
      // A tensor that reaches into another was cut from the same bytes twice.
      if (next->first < at || segment.bytes > static_cast<uint64_t>(end - next->first)) continue;
      segment.literal_bytes = static_cast<uint64_t>(next->first - at);
      literals[file.name].push_back({at, next->first});
      literal_bytes += segment.literal_bytes;
      at = next->first + segment.bytes;
      recorded.record.files[file.name].push_back(std::move(segment));
    }
    literals[file.name].push_back({at, end});
    literal_bytes += static_cast<uint64_t>(end - at);
  }
  if (literal_bytes > kLiteralBytes + file_bytes / kLiteralShare) {
    return Error(absl::StatusCode::kResourceExhausted,
                 {.what = "the imported files cannot be given back",
                  .why = absl::StrCat("the chain has ", BytesText(literal_bytes), " of their ",
                                      BytesText(file_bytes), " in another form")});
  }
  for (const auto& [name, spans] : literals) {
    std::string& text = recorded.literals[name];
    for (const std::span<const std::byte> span : spans) {
      text.append(reinterpret_cast<const char*>(span.data()), span.size());
    }
  }
  return recorded;
}

}  // namespace tessera::blockzoo
