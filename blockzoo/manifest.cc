#include "blockzoo/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "blockzoo/manifest_text.h"
#include "kernels/weight_planes.h"

namespace tessera::blockzoo {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxDimension = (uint64_t{1} << 31) - 1;
constexpr uint64_t kMaxBlocks = 65536;

Status BadField(absl::string_view field, absl::string_view why) {
  return Error(
      absl::StatusCode::kInvalidArgument,
      {.what = absl::StrCat("manifest field ", field, " is not valid"), .why = std::string(why)});
}

StatusOr<const json*> Member(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) return BadField(name, "it is missing");
  return &*found;
}

StatusOr<std::string> TextMember(const json& object, const char* name) {
  TESSERA_ASSIGN_OR_RETURN(const json* value, Member(object, name));
  if (!value->is_string()) return BadField(name, "it must be text");
  return value->get<std::string>();
}

StatusOr<uint64_t> CountMember(const json& object, const char* name, uint64_t high) {
  TESSERA_ASSIGN_OR_RETURN(const json* value, Member(object, name));
  if (!value->is_number_unsigned()) return BadField(name, "it must be a whole number");
  const uint64_t number = value->get<uint64_t>();
  if (number > high) return BadField(name, absl::StrCat(number, " is above ", high));
  return number;
}

StatusOr<double> NumberMember(const json& object, const char* name) {
  TESSERA_ASSIGN_OR_RETURN(const json* value, Member(object, name));
  if (!value->is_number()) return BadField(name, "it must be a number");
  return value->get<double>();
}

StatusOr<Digest> DigestOf(const json& value, const char* name) {
  if (!value.is_string()) return BadField(name, "it must be a digest");
  StatusOr<Digest> digest = Digest::FromHex(value.get_ref<const std::string&>());
  if (!digest.ok()) return BadField(name, digest.status().message());
  return digest;
}

StatusOr<const json*> ListMember(const json& object, const char* name) {
  TESSERA_ASSIGN_OR_RETURN(const json* value, Member(object, name));
  if (!value->is_array()) return BadField(name, "it must be a list");
  return value;
}

StatusOr<const json*> ObjectMember(const json& object, const char* name) {
  TESSERA_ASSIGN_OR_RETURN(const json* value, Member(object, name));
  if (!value->is_object()) return BadField(name, "it must be an object");
  return value;
}

StatusOr<std::vector<double>> DoublesOf(const json& list, absl::string_view name) {
  std::vector<double> numbers;
  for (const json& element : list) {
    if (!element.is_number()) return BadField(name, "it must be a list of numbers");
    numbers.push_back(element.get<double>());
  }
  return numbers;
}

StatusOr<Attributes> AttributesOf(const json& object) {
  Attributes attributes;
  for (const auto& [name, value] : object.items()) {
    if (value.is_number_float()) {
      attributes.Set(name, value.get<double>());
    } else if (value.is_number_integer()) {
      if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) {
        return BadField(name, "it is above 2^63 - 1");
      }
      attributes.Set(name, value.get<int64_t>());
    } else if (value.is_string()) {
      attributes.Set(name, value.get<std::string>());
    } else if (value.is_array()) {
      TESSERA_ASSIGN_OR_RETURN(std::vector<double> numbers, DoublesOf(value, name));
      attributes.Set(name, std::move(numbers));
    } else {
      return BadField(name, "it must be a number, text or a list of numbers");
    }
  }
  return attributes;
}

StatusOr<TensorRef> TensorRefOf(const json& object) {
  if (!object.is_object()) return BadField("tensors", "each must be an object");
  TensorRef ref;
  TESSERA_ASSIGN_OR_RETURN(ref.role, TextMember(object, "role"));
  TESSERA_ASSIGN_OR_RETURN(const json* digest, Member(object, "tensor"));
  TESSERA_ASSIGN_OR_RETURN(ref.tensor, DigestOf(*digest, "tensor"));
  TESSERA_ASSIGN_OR_RETURN(const std::string dtype, TextMember(object, "dtype"));
  const std::optional<kernels::DType> known = kernels::DTypeFromName(dtype);
  if (!known.has_value()) return BadField("dtype", absl::StrCat("unknown element type ", dtype));
  ref.dtype = *known;
  TESSERA_ASSIGN_OR_RETURN(const json* shape, ListMember(object, "shape"));
  for (const json& dimension : *shape) {
    if (!dimension.is_number_unsigned())
      return BadField("shape", "it must be a list of whole numbers");
    ref.shape.push_back(dimension.get<uint64_t>());
  }
  TESSERA_RETURN_IF_ERROR(TensorBytes(ref.dtype, ref.shape).status());
  return ref;
}

// Fields of rotary settings that a manifest names only where they differ from their defaults.
struct RotaryNumber {
  const char* name;
  double RotarySettings::*value;
};
constexpr RotaryNumber kRotaryNumbers[] = {{"attention_factor", &RotarySettings::attention_factor},
                                           {"beta_fast", &RotarySettings::beta_fast},
                                           {"beta_slow", &RotarySettings::beta_slow},
                                           {"mscale", &RotarySettings::mscale},
                                           {"mscale_all_dim", &RotarySettings::mscale_all_dim}};
struct RotaryList {
  const char* name;
  std::vector<double> RotarySettings::*values;
};
constexpr RotaryList kRotaryLists[] = {{"long_factor", &RotarySettings::long_factor},
                                       {"short_factor", &RotarySettings::short_factor}};

Status ReadOptionalRotary(const json& object, RotarySettings& rotary) {
  for (const RotaryNumber& field : kRotaryNumbers) {
    if (!object.contains(field.name)) continue;
    TESSERA_ASSIGN_OR_RETURN(rotary.*field.value, NumberMember(object, field.name));
  }
  for (const RotaryList& field : kRotaryLists) {
    if (!object.contains(field.name)) continue;
    TESSERA_ASSIGN_OR_RETURN(const json* list, ListMember(object, field.name));
    TESSERA_ASSIGN_OR_RETURN(rotary.*field.values, DoublesOf(*list, field.name));
    if ((rotary.*field.values).size() != rotary.dim / 2) {
      return BadField(absl::StrCat("rotary.", field.name), "there must be dim / 2 of them");
    }
  }
  if (object.contains("truncate")) {
    TESSERA_ASSIGN_OR_RETURN(const uint64_t truncate, CountMember(object, "truncate", 1));
    rotary.truncate = truncate == 1;
  }
  if (object.contains("length")) {
    TESSERA_ASSIGN_OR_RETURN(rotary.length, CountMember(object, "length", kMaxDimension));
  }
  return absl::OkStatus();
}

StatusOr<RotarySettings> RotaryOf(const json& object) {
  if (!object.is_object()) return BadField("rotary", "each must be an object");
  RotarySettings rotary;
  TESSERA_ASSIGN_OR_RETURN(const uint64_t dim, CountMember(object, "dim", 65536));
  rotary.dim = static_cast<uint32_t>(dim);
  TESSERA_ASSIGN_OR_RETURN(rotary.base, NumberMember(object, "base"));
  TESSERA_ASSIGN_OR_RETURN(rotary.scaling, TextMember(object, "scaling"));
  TESSERA_ASSIGN_OR_RETURN(rotary.factor, NumberMember(object, "factor"));
  TESSERA_ASSIGN_OR_RETURN(rotary.low_freq_factor, NumberMember(object, "low_freq_factor"));
  TESSERA_ASSIGN_OR_RETURN(rotary.high_freq_factor, NumberMember(object, "high_freq_factor"));
  TESSERA_ASSIGN_OR_RETURN(rotary.original_context,
                           CountMember(object, "original_context", kMaxDimension));
  TESSERA_ASSIGN_OR_RETURN(const json* factors, ListMember(object, "frequency_factors"));
  TESSERA_ASSIGN_OR_RETURN(rotary.frequency_factors, DoublesOf(*factors, "frequency_factors"));
  if (rotary.dim % 2 != 0) return BadField("rotary.dim", "it must be even");
  if (!rotary.frequency_factors.empty() && rotary.frequency_factors.size() != rotary.dim / 2) {
    return BadField("rotary.frequency_factors", "there must be dim / 2 of them");
  }
  TESSERA_RETURN_IF_ERROR(ReadOptionalRotary(object, rotary));
  return rotary;
}

std::string TextOf(const RotarySettings& rotary) {
  const RotarySettings defaults;
  Attributes attributes;
  attributes.Set("dim", static_cast<int64_t>(rotary.dim));
  attributes.Set("base", rotary.base);
  attributes.Set("scaling", rotary.scaling);
  attributes.Set("factor", rotary.factor);
  attributes.Set("low_freq_factor", rotary.low_freq_factor);
  attributes.Set("high_freq_factor", rotary.high_freq_factor);
  attributes.Set("original_context", static_cast<int64_t>(rotary.original_context));
  attributes.Set("frequency_factors", rotary.frequency_factors);
  for (const RotaryNumber& field : kRotaryNumbers) {
    if (rotary.*field.value != defaults.*field.value) {
      attributes.Set(field.name, rotary.*field.value);
    }
  }
  for (const RotaryList& field : kRotaryLists) {
    if (!(rotary.*field.values).empty()) attributes.Set(field.name, rotary.*field.values);
  }
  if (!rotary.truncate) attributes.Set("truncate", int64_t{0});
  if (rotary.length != 0) attributes.Set("length", static_cast<int64_t>(rotary.length));
  return JsonObject(attributes);
}

std::string Quoted(const Digest& digest) { return absl::StrCat("\"", digest.Hex(), "\""); }

Status ParseLists(const json& object, ChainManifest& chain) {
  TESSERA_ASSIGN_OR_RETURN(const json* blocks, ListMember(object, "blocks"));
  if (blocks->size() > kMaxBlocks) return BadField("blocks", "there are more than 65536");
  for (const json& block : *blocks) {
    TESSERA_ASSIGN_OR_RETURN(Digest digest, DigestOf(block, "blocks"));
    chain.blocks.push_back(digest);
  }
  TESSERA_ASSIGN_OR_RETURN(const json* rotary, ListMember(object, "rotary"));
  for (const json& settings : *rotary) {
    TESSERA_ASSIGN_OR_RETURN(RotarySettings parsed, RotaryOf(settings));
    chain.rotary.push_back(std::move(parsed));
  }
  TESSERA_ASSIGN_OR_RETURN(const json* ends, ListMember(object, "end_token_ids"));
  for (const json& id : *ends) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) {
      return BadField("end_token_ids", "it must be a list of token ids");
    }
    chain.end_token_ids.push_back(id.get<uint32_t>());
  }
  TESSERA_ASSIGN_OR_RETURN(const json* assets, ObjectMember(object, "assets"));
  for (const auto& [name, digest] : assets->items()) {
    TESSERA_ASSIGN_OR_RETURN(chain.assets[name], DigestOf(digest, "assets"));
  }
  TESSERA_ASSIGN_OR_RETURN(const json* provenance, ObjectMember(object, "provenance"));
  for (const auto& [name, text] : provenance->items()) {
    if (!text.is_string()) return BadField("provenance", "it must be an object of texts");
    chain.provenance[name] = text.get<std::string>();
  }
  if (!object.contains("source")) return absl::OkStatus();
  TESSERA_ASSIGN_OR_RETURN(const json* source, ObjectMember(object, "source"));
  for (const auto& [name, digest] : source->items()) {
    TESSERA_ASSIGN_OR_RETURN(chain.source[name], DigestOf(digest, "source"));
  }
  return absl::OkStatus();
}

StatusOr<json> ParseObject(absl::string_view text) {
  json object = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "the manifest is not readable", .why = "it is not a JSON object"});
  }
  return object;
}

}  // namespace

StatusOr<uint64_t> TensorBytes(kernels::DType dtype, const Shape& shape) {
  if (shape.empty() || shape.size() > 4) {
    return BadField("shape", absl::StrCat(shape.size(), " dimensions, allowed 1 to 4"));
  }
  const absl::string_view type = kernels::InfoOf(dtype).name;
  if (!kernels::IsWeightType(dtype)) {
    return BadField("dtype", absl::StrCat(type, " is a type of keys and values only"));
  }
  if (kernels::HasPlanes(dtype) && shape.size() != 2) {
    return BadField("shape", absl::StrCat(ShapeText(shape), ": a weight of type ", type,
                                          " has rows and columns"));
  }
  uint64_t rows = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 1 || shape[i] > kMaxDimension) {
      return BadField("shape", absl::StrCat("dimension ", shape[i], ", allowed 1 to 2^31 - 1"));
    }
    if (i + 1 < shape.size() && __builtin_mul_overflow(rows, shape[i], &rows)) {
      return BadField("shape", absl::StrCat(ShapeText(shape), " overflows"));
    }
  }
  const std::optional<uint64_t> bytes = kernels::StorageBytes(dtype, rows, shape.back());
  if (!bytes.has_value() || *bytes > INT64_MAX) {
    return BadField(
        "shape", absl::StrCat(ShapeText(shape), " overflows, or its rows do not fill whole ", type,
                              " blocks of ", kernels::InfoOf(dtype).block_elements, " elements"));
  }
  return *bytes;
}

std::string ShapeText(const Shape& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

const TensorRef* BlockManifest::Find(absl::string_view role) const {
  for (const TensorRef& ref : tensors) {
    if (ref.role == role) return &ref;
  }
  return nullptr;
}

std::string CanonicalText(const BlockManifest& manifest) {
  std::vector<const TensorRef*> sorted;
  for (const TensorRef& ref : manifest.tensors) sorted.push_back(&ref);
  std::sort(sorted.begin(), sorted.end(),
            [](const TensorRef* a, const TensorRef* b) { return a->role < b->role; });
  std::string text =
      absl::StrCat("{\"attributes\":", JsonObject(manifest.attributes), ",\"tensors\":[");
  for (const TensorRef* ref : sorted) {
    absl::StrAppend(&text, ref == sorted.front() ? "" : ",", "{\"dtype\":\"",
                    kernels::InfoOf(ref->dtype).name, "\",\"role\":", JsonText(ref->role),
                    ",\"shape\":[", absl::StrJoin(ref->shape, ","),
                    "],\"tensor\":", Quoted(ref->tensor), "}");
  }
  return absl::StrCat(text, "],\"type\":", JsonText(manifest.type), "}");
}

std::string CanonicalText(const ChainManifest& manifest) {
  std::string text = absl::StrCat("{\"architecture\":", JsonText(manifest.architecture));
  absl::StrAppend(&text, ",\"assets\":{");
  const char* comma = "";
  for (const auto& [name, digest] : manifest.assets) {
    absl::StrAppend(&text, comma, JsonText(name), ":", Quoted(digest));
    comma = ",";
  }
  absl::StrAppend(&text, "},\"blocks\":[");
  comma = "";
  for (const Digest& block : manifest.blocks) {
    absl::StrAppend(&text, comma, Quoted(block));
    comma = ",";
  }
  absl::StrAppend(&text, "],\"end_token_ids\":[", absl::StrJoin(manifest.end_token_ids, ","),
                  "],\"max_context\":", manifest.max_context, ",\"name\":", JsonText(manifest.name),
                  ",\"provenance\":{");
  comma = "";
  for (const auto& [name, value] : manifest.provenance) {
    absl::StrAppend(&text, comma, JsonText(name), ":", JsonText(value));
    comma = ",";
  }
  absl::StrAppend(&text, "},\"rotary\":[");
  comma = "";
  for (const RotarySettings& rotary : manifest.rotary) {
    absl::StrAppend(&text, comma, TextOf(rotary));
    comma = ",";
  }
  absl::StrAppend(&text, "]");
  if (!manifest.source.empty()) {
    absl::StrAppend(&text, ",\"source\":{");
    comma = "";
    for (const auto& [name, digest] : manifest.source) {
      absl::StrAppend(&text, comma, JsonText(name), ":", Quoted(digest));
      comma = ",";
    }
    absl::StrAppend(&text, "}");
  }
  return absl::StrCat(text, ",\"vocab\":", manifest.vocab, ",\"width\":", manifest.width, "}");
}

StatusOr<BlockManifest> ParseBlockManifest(absl::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(const json object, ParseObject(text));
  BlockManifest manifest;
  TESSERA_ASSIGN_OR_RETURN(manifest.type, TextMember(object, "type"));
  TESSERA_ASSIGN_OR_RETURN(const json* attributes, ObjectMember(object, "attributes"));
  TESSERA_ASSIGN_OR_RETURN(manifest.attributes, AttributesOf(*attributes));
  TESSERA_ASSIGN_OR_RETURN(const json* tensors, ListMember(object, "tensors"));
  for (const json& tensor : *tensors) {
    TESSERA_ASSIGN_OR_RETURN(TensorRef ref, TensorRefOf(tensor));
    if (!manifest.tensors.empty() && manifest.tensors.back().role >= ref.role) {
      return BadField("tensors", "roles must be sorted and unique");
    }
    manifest.tensors.push_back(std::move(ref));
  }
  return manifest;
}

StatusOr<ChainManifest> ParseChainManifest(absl::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(const json object, ParseObject(text));
  ChainManifest chain;
  TESSERA_ASSIGN_OR_RETURN(chain.name, TextMember(object, "name"));
  TESSERA_ASSIGN_OR_RETURN(chain.architecture, TextMember(object, "architecture"));
  TESSERA_ASSIGN_OR_RETURN(chain.width, CountMember(object, "width", kMaxDimension));
  TESSERA_ASSIGN_OR_RETURN(chain.vocab, CountMember(object, "vocab", kMaxDimension));
  TESSERA_ASSIGN_OR_RETURN(chain.max_context, CountMember(object, "max_context", kMaxDimension));
  TESSERA_RETURN_IF_ERROR(ParseLists(object, chain));
  return chain;
}

Digest IdentityOf(const BlockManifest& manifest) {
  const std::string text = CanonicalText(manifest);
  Hasher hasher;
  hasher.AddBytes({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  return hasher.Finish();
}

Digest RevisionOf(const ChainManifest& manifest) {
  ChainManifest unnamed = manifest;
  unnamed.name.clear();
  unnamed.provenance.clear();
  unnamed.source.clear();
  const std::string text = CanonicalText(unnamed);
  Hasher hasher;
  hasher.AddBytes({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  return hasher.Finish();
}

Digest TensorIdentity(kernels::DType dtype, const Shape& shape, std::span<const uint8_t> bytes) {
  Hasher hasher;
  hasher.AddText(kernels::InfoOf(dtype).name);
  hasher.AddU64(shape.size());
  for (const uint64_t dimension : shape) hasher.AddU64(dimension);
  hasher.AddBytes(bytes);
  return hasher.Finish();
}

}  // namespace tessera::blockzoo
