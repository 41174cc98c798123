#include "server/text/huggingface_parts.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;

constexpr int kMaxNesting = 8;
constexpr size_t kMaxSteps = 32;
constexpr size_t kMaxReplacementBytes = 1024;
constexpr char kGpt2Pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
constexpr char kPunctuation[] = "[\\p{P}!-/:-@\\[-`{-~]";

// The pattern object {"String": s} or {"Regex": r}.
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

// The members of a "Sequence", or the part alone.
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

StatusOr<std::unique_ptr<NormalizerStep>> ReadNormalizerStep(const Json& json) {
  const std::string type = TextOf(json, "type", "");
  if (type == "NFC") return MakeUnicodeStep(UnicodeForm::kNfc);
  if (type == "NFD") return MakeUnicodeStep(UnicodeForm::kNfd);
  if (type == "NFKC") return MakeUnicodeStep(UnicodeForm::kNfkc);
  if (type == "NFKD") return MakeUnicodeStep(UnicodeForm::kNfkd);
  if (type == "Lowercase") return MakeLowercaseStep();
  if (type == "StripAccents") return MakeStripAccentsStep();
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
    return AddSplit(FlagOf(json, "individual_digits", false) ? "\\p{N}" : "\\p{N}+",
                    SplitBehavior::kIsolated, steps);
  }
  if (type == "Punctuation") {
    TESSERA_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(json));
    return AddSplit(kPunctuation, behavior, steps);
  }
  if (type == "Whitespace") {
    TESSERA_ASSIGN_OR_RETURN(Regex regex, Regex::Compile("\\w+|[^\\w\\s]+"));
    steps->push_back(
        MakeSplitStep(std::move(regex), SplitBehavior::kRemoved, SplitMatches::kInverted));
    return absl::OkStatus();
  }
  if (type == "WhitespaceSplit") return AddSplit("\\s+", SplitBehavior::kRemoved, steps);
  if (type == "BertPreTokenizer") {
    TESSERA_RETURN_IF_ERROR(AddSplit("\\s+", SplitBehavior::kRemoved, steps));
    return AddSplit(kPunctuation, SplitBehavior::kIsolated, steps);
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

StatusOr<NormalizerSteps> ReadNormalizer(const Json& json) {
  NormalizerSteps steps;
  TESSERA_ASSIGN_OR_RETURN(const auto members, Members(json, "normalizers", "normalizer", 0));
  for (const Json* member : members) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<NormalizerStep> step, ReadNormalizerStep(*member));
    steps.push_back(std::move(step));
  }
  return steps;
}

StatusOr<PreTokenizerPart> ReadPreTokenizer(const Json& json) {
  PreTokenizerPart part;
  TESSERA_ASSIGN_OR_RETURN(const auto members, Members(json, "pretokenizers", "pre_tokenizer", 0));
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

StatusOr<DecoderPart> ReadDecoder(const Json& json) {
  DecoderPart part;
  TESSERA_ASSIGN_OR_RETURN(const auto members, Members(json, "decoders", "decoder", 0));
  for (const Json* member : members) {
    const std::string type = TextOf(*member, "type", "");
    if (TextOf(*member, "content", "").size() > kMaxReplacementBytes) {
      return HuggingFaceError("decoder.content", "is too long");
    }
    if (type == "ByteLevel") {
      part.writing = VocabularyWriting::kByteSymbols;
    } else if (type == "ByteFallback") {
      part.byte_fallback = true;
    } else if (type == "Metaspace") {
      part.replacements.emplace_back(TextOf(*member, "replacement", "\xE2\x96\x81"), " ");
      part.strips_first_space = TextOf(*member, "prepend_scheme", "always") != "never" &&
                                FlagOf(*member, "add_prefix_space", true);
    } else if (type == "Replace") {
      const auto pattern = member->find("pattern");
      const std::string from = pattern == member->end() ? "" : TextOf(*pattern, "String", "");
      if (from.empty()) return HuggingFaceError("decoder.Replace", "needs a String pattern");
      part.replacements.emplace_back(from, TextOf(*member, "content", ""));
    } else if (type == "Strip") {
      const auto start = member->find("start");
      part.strips_first_space = TextOf(*member, "content", "") == " " && start != member->end() &&
                                start->is_number_unsigned() && start->get<uint64_t>() > 0;
    } else if (type == "WordPiece") {
      part.continuation_prefix = TextOf(*member, "prefix", "##");
      part.strips_first_space = true;
    } else if (type != "Fuse") {
      return HuggingFaceError("decoder.type", absl::StrCat("\"", type, "\" is not supported"));
    }
  }
  return part;
}

StatusOr<PostProcessorPart> ReadPostProcessor(const Json& json) {
  PostProcessorPart part;
  TESSERA_ASSIGN_OR_RETURN(const auto members, Members(json, "processors", "post_processor", 0));
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
