#include "server/text/huggingface_parts.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/text/character_map.h"
#include "server/text/unicode_classes.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;

constexpr int kMaxNesting = 8;
constexpr size_t kMaxSteps = 32;
constexpr uint64_t kMaxFixedLength = 65535;  // the most that a pattern repeats
constexpr char kGpt2Pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

StatusOr<std::vector<const Json*>> Members(const Json& json, const char* list, const char* where,
                                           int depth) {
  std::vector<const Json*> members;
  if (json.is_null()) return members;
  if (!json.is_object()) return HuggingFaceError(where, "must be an object");
  if (TextOf(json, "type", "") != "Sequence") {
    members.push_back(&json);
    return members;
  }
  const auto it = json.find(list);
  if (it == json.end() || !it->is_array()) {
    return HuggingFaceError(where, absl::StrCat("a Sequence needs the list ", list));
  }
  if (depth >= kMaxNesting) return HuggingFaceError(where, "Sequences are nested too deeply");
  for (const Json& member : *it) {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<const Json*> inner,
                             Members(member, list, where, depth + 1));
    members.insert(members.end(), inner.begin(), inner.end());
    if (members.size() > kMaxSteps) return HuggingFaceError(where, "it has too many steps");
  }
  return members;
}

StatusOr<std::unique_ptr<NormalizerStep>> ReadPrecompiled(const Json& json) {
  constexpr char kField[] = "normalizer.precompiled_charsmap";
  std::string map;
  const std::string text = TextOf(json, "precompiled_charsmap", "");
  if (!absl::Base64Unescape(text, &map)) return HuggingFaceError(kField, "is not base64");
  StatusOr<CharacterMap> parsed = CharacterMap::Parse(map);
  if (!parsed.ok()) return HuggingFaceError(kField, parsed.status().message());
  return MakeCharacterMapStep(*std::move(parsed));
}

StatusOr<std::unique_ptr<NormalizerStep>> ReadNormalizerStep(const Json& json) {
  const std::string type = TextOf(json, "type", "");
  constexpr UnicodeVersion kVersion = UnicodeVersion::k9;
  if (type == "NFC") return MakeUnicodeStep(UnicodeForm::kNfc, kVersion);
  if (type == "NFD") return MakeUnicodeStep(UnicodeForm::kNfd, kVersion);
  if (type == "NFKC") return MakeUnicodeStep(UnicodeForm::kNfkc, kVersion);
  if (type == "NFKD") return MakeUnicodeStep(UnicodeForm::kNfkd, kVersion);
  if (type == "Lowercase") return MakeLowercaseStep();
  if (type == "StripAccents") return MakeRemoveStep(kAccent);
  if (type == "Nmt") return MakeNmtStep();
  if (type == "ByteLevel") return MakeByteSymbolsStep();
  if (type == "Precompiled") return ReadPrecompiled(json);
  if (type == "Prepend") {
    std::string prefix = TextOf(json, "prepend", "");
    if (prefix.size() > kMaxReplacementBytes) {
      return HuggingFaceError("normalizer.prepend", "is too long");
    }
    return MakePrependStep(std::move(prefix), PrependTo::kEveryFragment);
  }
  if (type == "Replace") {
    TESSERA_ASSIGN_OR_RETURN(Regex pattern, ReadPattern(json, "normalizer.Replace"));
    std::string content = TextOf(json, "content", "");
    if (content.size() > kMaxReplacementBytes) {
      return HuggingFaceError("normalizer.content", "is too long");
    }
    return MakeReplaceStep(std::move(pattern), std::move(content));
  }
  if (type == "Strip") {
    const bool left = FlagOf(json, "strip_left", true);
    const bool right = FlagOf(json, "strip_right", true);
    if (!left && !right) return MakePrependStep("", PrependTo::kEveryFragment);
    return MakeStripStep(left && right ? StripSides::kBoth
                                       : (left ? StripSides::kLeft : StripSides::kRight));
  }
  if (type == "BertNormalizer") {
    BertNormalizerOptions options;
    options.clean_text = FlagOf(json, "clean_text", true);
    options.handle_chinese_chars = FlagOf(json, "handle_chinese_chars", true);
    options.lowercase = FlagOf(json, "lowercase", true);
    options.strip_accents = FlagOf(json, "strip_accents", options.lowercase);
    return MakeBertStep(options);
  }
  return HuggingFaceError("normalizer.type", absl::StrCat("\"", type, "\" is not supported"));
}

StatusOr<SplitBehavior> ReadBehavior(const Json& json) {
  const std::string name = TextOf(json, "behavior", "Isolated");
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return HuggingFaceError("pre_tokenizer.behavior", absl::StrCat("unknown: ", name));
}

void AddScan(SplitScanner scanner, SplitBehavior behavior, PreTokenizerSteps* steps) {
  steps->push_back(MakeSplitStep(Regex::FromScanner(scanner), behavior, SplitMatches::kPattern));
}

Status AddSplit(absl::string_view pattern, SplitBehavior behavior, PreTokenizerSteps* steps) {
  TESSERA_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(pattern));
  steps->push_back(MakeSplitStep(std::move(regex), behavior, SplitMatches::kPattern));
  return absl::OkStatus();
}

Status AddMetaspace(const Json& json, PreTokenizerSteps* steps) {
  const std::string replacement = TextOf(json, "replacement", "\xE2\x96\x81");
  if (replacement.empty() || replacement.size() > kMaxReplacementBytes) {
    return HuggingFaceError("pre_tokenizer.replacement", "must be one character");
  }
  PrependScheme scheme =
      FlagOf(json, "add_prefix_space", true) ? PrependScheme::kAlways : PrependScheme::kNever;
  const std::string name = TextOf(json, "prepend_scheme", "");
  if (name == "always") scheme = PrependScheme::kAlways;
  if (name == "first") scheme = PrependScheme::kFirst;
  if (name == "never") scheme = PrependScheme::kNever;
  steps->push_back(MakeMetaspaceStep(replacement, scheme));
  if (!FlagOf(json, "split", true)) return absl::OkStatus();
  TESSERA_ASSIGN_OR_RETURN(Regex regex, Regex::CompileLiteral(replacement));
  steps->push_back(
      MakeSplitStep(std::move(regex), SplitBehavior::kMergedWithNext, SplitMatches::kPattern));
  return absl::OkStatus();
}

// Everything but ByteLevel.
Status AddPreTokenizerStep(const Json& json, PreTokenizerSteps* steps) {
  const std::string type = TextOf(json, "type", "");
  if (type == "Split") {
    TESSERA_ASSIGN_OR_RETURN(Regex pattern, ReadPattern(json, "pre_tokenizer.Split"));
    TESSERA_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(json));
    const bool invert = FlagOf(json, "invert", false);
    steps->push_back(MakeSplitStep(std::move(pattern), behavior,
                                   invert ? SplitMatches::kInverted : SplitMatches::kPattern));
    return absl::OkStatus();
  }
  if (type == "Digits") {
    const bool individual = FlagOf(json, "individual_digits", false);
    AddScan(individual ? &ScanDigit : &ScanDigits, SplitBehavior::kIsolated, steps);
    return absl::OkStatus();
  }
  if (type == "Punctuation") {
    TESSERA_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(json));
    AddScan(&ScanBertPunctuation, behavior, steps);
    return absl::OkStatus();
  }
  if (type == "Whitespace") {
    steps->push_back(MakeSplitStep(Regex::FromScanner(&ScanWordsAndSymbols),
                                   SplitBehavior::kRemoved, SplitMatches::kInverted));
    return absl::OkStatus();
  }
  if (type == "WhitespaceSplit" || type == "BertPreTokenizer") {
    AddScan(&ScanWhiteSpace, SplitBehavior::kRemoved, steps);
    if (type == "BertPreTokenizer") AddScan(&ScanBertPunctuation, SplitBehavior::kIsolated, steps);
    return absl::OkStatus();
  }
  if (type == "CharDelimiterSplit") {
    TESSERA_ASSIGN_OR_RETURN(Regex regex, Regex::CompileLiteral(TextOf(json, "delimiter", "")));
    steps->push_back(
        MakeSplitStep(std::move(regex), SplitBehavior::kRemoved, SplitMatches::kPattern));
    return absl::OkStatus();
  }
  if (type == "FixedLength") {
    const auto length = json.find("length");
    const bool given = length != json.end() && length->is_number_unsigned();
    const uint64_t characters = given ? length->get<uint64_t>() : 0;
    if (characters < 1 || characters > kMaxFixedLength) {
      return HuggingFaceError("pre_tokenizer.length",
                              absl::StrCat("must be 1 to ", kMaxFixedLength));
    }
    return AddSplit(absl::StrCat("(?s:.{1,", characters, "})"), SplitBehavior::kIsolated, steps);
  }
  if (type == "Metaspace") return AddMetaspace(json, steps);
  return HuggingFaceError("pre_tokenizer.type", absl::StrCat("\"", type, "\" is not supported"));
}

// Ids of the special tokens in one side of a TemplateProcessing.
Status ReadTemplate(const Json& json, PostProcessorPart* part) {
  const auto single = json.find("single");
  const auto specials = json.find("special_tokens");
  if (single == json.end() || !single->is_array()) {
    return HuggingFaceError("post_processor.single", "must be a list");
  }
  bool behind = false;
  for (const Json& item : *single) {
    if (!item.is_object()) return HuggingFaceError("post_processor.single", "broken item");
    if (item.contains("Sequence")) {
      if (behind || TextOf(item["Sequence"], "id", "A") != "A") {
        return HuggingFaceError("post_processor.single", "must have the text A once");
      }
      behind = true;
      continue;
    }
    const auto special = item.find("SpecialToken");
    if (special == item.end() || !special->is_object()) {
      return HuggingFaceError("post_processor.single", "unknown item");
    }
    const std::string name = TextOf(*special, "id", "");
    const Json* ids = nullptr;
    if (specials != json.end() && specials->is_object() && specials->contains(name)) {
      const Json& entry = (*specials)[name];
      if (entry.is_object() && entry.contains("ids")) ids = &entry["ids"];
    }
    if (ids == nullptr || !ids->is_array()) {
      return HuggingFaceError("post_processor.special_tokens", absl::StrCat("no ids for ", name));
    }
    for (const Json& id : *ids) {
      if (!id.is_number_unsigned()) {
        return HuggingFaceError("post_processor.special_tokens", "ids must be numbers");
      }
      (behind ? part->suffix : part->prefix).push_back(id.get<uint64_t>());
    }
  }
  return absl::OkStatus();
}

Status ReadPair(const Json& json, const char* name, std::vector<uint64_t>* out) {
  const auto it = json.find(name);
  if (it == json.end() || !it->is_array() || it->size() != 2 || !(*it)[1].is_number_unsigned()) {
    return HuggingFaceError(absl::StrCat("post_processor.", name), "must be [text, id]");
  }
  out->push_back((*it)[1].get<uint64_t>());
  return absl::OkStatus();
}

}  // namespace

Status HuggingFaceError(absl::string_view where, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {"tokenizer.json is not usable", std::string(where), std::string(why),
                "fetch the file again, or import a GGUF file of the model"});
}

std::string TextOf(const Json& object, const char* name, absl::string_view fallback) {
  if (!object.is_object()) return std::string(fallback);
  const auto it = object.find(name);
  if (it == object.end() || !it->is_string()) return std::string(fallback);
  return it->get<std::string>();
}

bool FlagOf(const Json& object, const char* name, bool fallback) {
  if (!object.is_object()) return fallback;
  const auto it = object.find(name);
  return it == object.end() || !it->is_boolean() ? fallback : it->get<bool>();
}

StatusOr<std::vector<const Json*>> SequenceMembers(const Json& json, const char* list,
                                                   const char* where) {
  return Members(json, list, where, 0);
}

StatusOr<Regex> ReadPattern(const Json& object, absl::string_view where) {
  const auto it = object.find("pattern");
  if (it == object.end()) return HuggingFaceError(where, "it has no pattern");
  if (it->is_string()) return Regex::CompileLiteral(it->get_ref<const std::string&>());
  if (it->is_object()) {
    if (const std::string text = TextOf(*it, "String", ""); !text.empty()) {
      return Regex::CompileLiteral(text);
    }
    if (const std::string regex = TextOf(*it, "Regex", ""); !regex.empty()) {
      return Regex::Compile(regex);
    }
  }
  return HuggingFaceError(where, "its pattern is neither String nor Regex");
}

StatusOr<NormalizerSteps> ReadNormalizer(const Json& json) {
  NormalizerSteps steps;
  TESSERA_ASSIGN_OR_RETURN(const auto members, SequenceMembers(json, "normalizers", "normalizer"));
  for (const Json* member : members) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<NormalizerStep> step, ReadNormalizerStep(*member));
    steps.push_back(std::move(step));
  }
  return steps;
}

StatusOr<PreTokenizerPart> ReadPreTokenizer(const Json& json) {
  PreTokenizerPart part;
  TESSERA_ASSIGN_OR_RETURN(const auto members,
                           SequenceMembers(json, "pretokenizers", "pre_tokenizer"));
  bool symbols = false;  // whether the text is in symbols at this point
  for (size_t i = 0; i < members.size(); ++i) {
    const Json& member = *members[i];
    if (TextOf(member, "type", "") != "ByteLevel") {
      TESSERA_RETURN_IF_ERROR(AddPreTokenizerStep(member, &part.steps));
      continue;
    }
    part.writing = VocabularyWriting::kByteSymbols;
    if (symbols) return HuggingFaceError("pre_tokenizer", "it has ByteLevel twice");
    if (FlagOf(member, "add_prefix_space", true)) part.steps.push_back(MakePrefixSpaceStep());
    if (FlagOf(member, "use_regex", true)) {
      TESSERA_RETURN_IF_ERROR(AddSplit(kGpt2Pattern, SplitBehavior::kIsolated, &part.steps));
    }
    // Later steps see the symbols; without any, the bytes can stay as they are.
    if (i + 1 < members.size()) {
      part.steps.push_back(MakeBytesToSymbolsStep());
      symbols = true;
    }
  }
  if (symbols) part.steps.push_back(MakeSymbolsToBytesStep());
  return part;
}

StatusOr<PostProcessorPart> ReadPostProcessor(const Json& json) {
  PostProcessorPart part;
  TESSERA_ASSIGN_OR_RETURN(const auto members,
                           SequenceMembers(json, "processors", "post_processor"));
  for (const Json* member : members) {
    const std::string type = TextOf(*member, "type", "");
    if (type == "TemplateProcessing") {
      TESSERA_RETURN_IF_ERROR(ReadTemplate(*member, &part));
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      TESSERA_RETURN_IF_ERROR(ReadPair(*member, "cls", &part.prefix));
      TESSERA_RETURN_IF_ERROR(ReadPair(*member, "sep", &part.suffix));
    } else if (type != "ByteLevel") {
      return HuggingFaceError("post_processor.type",
                              absl::StrCat("\"", type, "\" is not supported"));
    }
  }
  return part;
}

}  // namespace tessera::server
