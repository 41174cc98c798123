#include "server/text/huggingface_decoder.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "server/text/huggingface_parts.h"
#include "server/text/merge.h"
#include "server/text/model.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;

// English spelling as WordPiece's decoder tidies it, in this order.
constexpr std::pair<absl::string_view, absl::string_view> kCleanups[] = {
    {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
    {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
    {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

StatusOr<std::string> ReplaceMatches(const Regex& pattern, absl::string_view content,
                                     absl::string_view text) {
  std::string out;
  size_t from = 0;
  while (from < text.size()) {
    TESSERA_ASSIGN_OR_RETURN(const Regex::Match match, pattern.Find(text, from));
    if (!match.found || match.end == match.begin) break;
    absl::StrAppend(&out, text.substr(from, match.begin - from), content);
    from = match.end;
    if (out.size() > kMaxTokenTextBytes) break;
  }
  absl::StrAppend(&out, text.substr(from));
  return out;
}

std::string StripCharacters(absl::string_view text, absl::string_view character, size_t start,
                            size_t stop) {
  for (; start > 0 && absl::ConsumePrefix(&text, character); --start) continue;
  for (; stop > 0 && absl::ConsumeSuffix(&text, character); --stop) continue;
  return std::string(text);
}

size_t CountOf(const Json& json, const char* name) {
  const auto it = json.find(name);
  return it != json.end() && it->is_number_unsigned() ? it->get<size_t>() : 0;
}

size_t CharactersIn(absl::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

}  // namespace

StatusOr<TokenDecoder> TokenDecoder::Read(const Json& json) {
  TokenDecoder decoder;
  if (json.is_null()) {
    decoder.steps_.push_back({});
    decoder.first_token_ = FirstToken::kWithoutOneSpace;
    return decoder;
  }
  TESSERA_ASSIGN_OR_RETURN(const auto members, SequenceMembers(json, "decoders", "decoder"));
  bool fused = false;
  for (const Json* member : members) {
    if (TextOf(*member, "type", "") == "Fuse") {
      fused = true;
    } else {
      TESSERA_RETURN_IF_ERROR(decoder.Add(*member, fused));
    }
  }
  return decoder;
}

Status TokenDecoder::Add(const Json& json, bool fused) {
  const std::string type = TextOf(json, "type", "");
  Step step;
  if (type == "ByteFallback" && !fused) {
    byte_fallback_ = true;
    return absl::OkStatus();
  }
  if (type == "Strip") return AddStrip(json, fused);
  if (type == "ByteLevel" && !fused) {
    step.kind = Kind::kByteLevel;
  } else if (type == "Metaspace" && !fused) {
    step.kind = Kind::kMetaspace;
    step.text = TextOf(json, "replacement", kSpaceMark);
    step.spaces_first = TextOf(json, "prepend_scheme", "always") == "never" ||
                        !FlagOf(json, "add_prefix_space", true);
    if (!step.spaces_first) first_token_ = FirstToken::kWithoutSpaces;
  } else if (type == "Replace") {
    step.kind = Kind::kReplace;
    TESSERA_ASSIGN_OR_RETURN(step.pattern, ReadPattern(json, "decoder.Replace"));
    step.text = TextOf(json, "content", "");
    if (fused && CharactersIn(TextOf(json["pattern"], "String", "")) != 1) {
      return HuggingFaceError("decoder.Replace", "behind Fuse it must replace one character");
    }
  } else if (type == "WordPiece" && !fused) {
    step.kind = Kind::kWordPiece;
    step.text = TextOf(json, "prefix", "##");
    first_token_ = FirstToken::kWithoutOneSpace;
    steps_.push_back(std::move(step));
    if (!FlagOf(json, "cleanup", true)) return absl::OkStatus();
    step = {};
    step.kind = Kind::kCleanup;
  } else {
    return HuggingFaceError("decoder.type", absl::StrCat("\"", type, "\" is not supported",
                                                         fused ? " behind Fuse" : ""));
  }
  if (step.text.size() > kMaxReplacementBytes) {
    return HuggingFaceError("decoder", absl::StrCat("a text of ", type, " is too long"));
  }
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

Status TokenDecoder::AddStrip(const Json& json, bool fused) {
  Step step;
  step.kind = Kind::kStrip;
  step.text = TextOf(json, "content", " ");
  step.start = CountOf(json, "start");
  step.stop = CountOf(json, "stop");
  if (CharactersIn(step.text) != 1) {
    return HuggingFaceError("decoder.Strip.content", "must be one character");
  }
  if (!fused) {
    steps_.push_back(std::move(step));
    return absl::OkStatus();
  }
  if (step.stop != 0 || step.start > 1 || step.text != " ") {
    return HuggingFaceError("decoder.Strip", "behind Fuse it may take one space at the start only");
  }
  if (step.start == 1) {
    first_token_ = FirstToken::kWithoutOneSpace;
    strips_text_ = true;
  }
  return absl::OkStatus();
}

StatusOr<std::string> TokenDecoder::Apply(const Step& step, std::string text, Place place) {
  const bool first = place == Place::kFirst;
  switch (step.kind) {
    case Kind::kJoin:
      return first ? text : absl::StrCat(" ", text);
    case Kind::kByteLevel:
      return SymbolsToBytes(text).value_or(text);
    case Kind::kMetaspace:
      return absl::StrReplaceAll(text, {{step.text, first && !step.spaces_first ? "" : " "}});
    case Kind::kReplace:
      return ReplaceMatches(*step.pattern, step.text, text);
    case Kind::kStrip:
      return StripCharacters(text, step.text, step.start, step.stop);
    case Kind::kWordPiece:
      if (first) return text;
      if (absl::StartsWith(text, step.text)) return text.substr(step.text.size());
      return absl::StrCat(" ", text);
    case Kind::kCleanup:
      for (const auto& [from, to] : kCleanups) text = absl::StrReplaceAll(text, {{from, to}});
      return text;
  }
  return text;
}

StatusOr<std::string> TokenDecoder::Write(absl::string_view token, Place place) const {
  std::string text(token);
  for (const Step& step : steps_) {
    TESSERA_ASSIGN_OR_RETURN(text, Apply(step, std::move(text), place));
    if (text.size() > kMaxTokenTextBytes) {
      return HuggingFaceError("decoder", "it makes a token too long");
    }
  }
  return text;
}

}  // namespace tessera::server
