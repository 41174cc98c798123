#include "blockzoo/import/safetensors_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

using nlohmann::json;

constexpr absl::string_view kMetadataKey = "__metadata__";

Status BadHeader(absl::string_view where, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = "the safetensors file is not valid",
                .where = std::string(where),
                .why = std::string(why),
                .fix = "fetch the file again: it may be cut short"});
}

// Parses the header; a name that is there twice is an error, which a plain parse would hide.
StatusOr<json> ParseHeader(absl::string_view text) {
  std::set<std::string> names;
  std::string twice;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth == 1 && event == json::parse_event_t::key &&
        !names.insert(parsed.get<std::string>()).second) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  json header = json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (!header.is_object()) return BadHeader("header", "it is not a JSON object");
  if (!twice.empty()) return BadHeader(twice, "the tensor is there twice");
  return header;
}

StatusOr<std::vector<uint64_t>> Counts(const json& entry, const char* field,
                                       const std::string& name) {
  const auto found = entry.find(field);
  if (found == entry.end() || !found->is_array()) {
    return BadHeader(name, absl::StrCat(field, " must be a list"));
  }
  std::vector<uint64_t> counts;
  for (const json& element : *found) {
    if (!element.is_number_unsigned()) {
      return BadHeader(name, absl::StrCat(field, " must hold whole numbers"));
    }
    counts.push_back(element.get<uint64_t>());
  }
  return counts;
}

// Bytes of one element; nullopt when the format has no such type in whole bytes.
std::optional<uint64_t> ElementBytes(absl::string_view type) {
  struct Known {
    absl::string_view name;
    uint64_t bytes;
  };
  static constexpr Known kKnown[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},     {"I32", 4},
      {"F32", 4},  {"U64", 8}, {"I64", 8}, {"F64", 8},     {"C64", 8},
  };
  for (const Known& known : kKnown) {
    if (known.name == type) return known.bytes;
  }
  return std::nullopt;
}

Status BadType(const std::string& name, const std::string& type, absl::string_view why) {
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat("the element type ", type, " is not supported"),
                .where = absl::StrCat("tensor ", name),
                .why = std::string(why),
                .fix = "fetch or make the model in F32, F16 or BF16"});
}

StatusOr<SafetensorsTensor> TensorOf(const std::string& name, const json& entry,
                                     std::span<const std::byte> data) {
  if (!entry.is_object()) return BadHeader(name, "its entry must be an object");
  SafetensorsTensor tensor;
  tensor.name = name;
  const auto type = entry.find("dtype");
  if (type == entry.end() || !type->is_string()) return BadHeader(name, "dtype must be text");
  tensor.type = type->get<std::string>();
  const std::optional<uint64_t> element_bytes = ElementBytes(tensor.type);
  if (!element_bytes.has_value()) {
    return BadType(name, tensor.type, "safetensors has no such type of whole bytes");
  }
  TESSERA_ASSIGN_OR_RETURN(tensor.shape, Counts(entry, "shape", name));
  if (tensor.shape.empty()) tensor.shape = {1};
  uint64_t bytes = *element_bytes;
  for (const uint64_t dimension : tensor.shape) {
    if (dimension == 0) return BadHeader(name, "a dimension of its shape is 0");
    if (__builtin_mul_overflow(bytes, dimension, &bytes)) {
      return BadHeader(name, absl::StrCat("its shape ", ShapeText(tensor.shape), " overflows"));
    }
  }
  TESSERA_ASSIGN_OR_RETURN(const std::vector<uint64_t> offsets,
                           Counts(entry, "data_offsets", name));
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data.size()) {
    return BadHeader(name, absl::StrCat("data_offsets must be [begin, end] within the data's ",
                                        data.size(), " bytes"));
  }
  if (offsets[1] - offsets[0] != bytes) {
    return BadHeader(name, absl::StrCat("it has ", offsets[1] - offsets[0], " bytes, ", tensor.type,
                                        " ", ShapeText(tensor.shape), " needs ", bytes));
  }
  tensor.bytes = data.subspan(offsets[0], bytes);
  return tensor;
}

// The bytes must follow each other from the first to the last of the file.
Status CheckCovered(const std::vector<SafetensorsTensor>& tensors,
                    std::span<const std::byte> data) {
  std::vector<const SafetensorsTensor*> sorted;
  for (const SafetensorsTensor& tensor : tensors) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(),
            [](const SafetensorsTensor* a, const SafetensorsTensor* b) {
              return a->bytes.data() < b->bytes.data();
            });
  const std::byte* end = data.data();
  for (const SafetensorsTensor* tensor : sorted) {
    if (tensor->bytes.data() < end)
      return BadHeader(tensor->name, "its bytes overlap another tensor's");
    if (tensor->bytes.data() > end)
      return BadHeader(tensor->name, "there is a gap before its bytes");
    end = tensor->bytes.data() + tensor->bytes.size();
  }
  if (end != data.data() + data.size()) {
    return BadHeader("data", "there are bytes after the last tensor");
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<std::vector<SafetensorsTensor>> ParseSafetensors(std::span<const std::byte> file) {
  if (file.size() < 8) return BadHeader("byte 0", "it has no header size");
  uint64_t header_bytes = 0;
  for (int i = 0; i < 8; ++i) header_bytes |= static_cast<uint64_t>(file[i]) << (8 * i);
  if (header_bytes > kMaxSafetensorsHeaderBytes || header_bytes > file.size() - 8) {
    return BadHeader("byte 0",
                     absl::StrCat("the header has ", header_bytes, " bytes, allowed ",
                                  std::min<uint64_t>(kMaxSafetensorsHeaderBytes, file.size() - 8)));
  }
  TESSERA_ASSIGN_OR_RETURN(
      const json header,
      ParseHeader({reinterpret_cast<const char*>(file.data()) + 8, header_bytes}));
  const std::span<const std::byte> data = file.subspan(8 + header_bytes);
  std::vector<SafetensorsTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == kMetadataKey) continue;
    if (name.empty()) return BadHeader("header", "a tensor has no name");
    TESSERA_ASSIGN_OR_RETURN(SafetensorsTensor tensor, TensorOf(name, entry, data));
    tensors.push_back(std::move(tensor));
  }
  TESSERA_RETURN_IF_ERROR(CheckCovered(tensors, data));
  return tensors;
}

StatusOr<CheckpointTensor> AsWeight(const SafetensorsTensor& tensor) {
  const std::optional<kernels::DType> dtype = kernels::DTypeFromName(tensor.type);
  if (!dtype.has_value() || !kernels::IsFloatType(*dtype)) {
    return BadType(tensor.name, tensor.type,
                   "a weight is F32, F16 or BF16, unless quantization_config says more");
  }
  const Status status = TensorBytes(*dtype, tensor.shape).status();
  if (!status.ok()) return BadHeader(tensor.name, status.message());
  return CheckpointTensor{
      .name = tensor.name, .dtype = *dtype, .shape = tensor.shape, .bytes = tensor.bytes};
}

}  // namespace tessera::blockzoo
