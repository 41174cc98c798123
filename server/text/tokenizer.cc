#include "server/text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

Status CheckText(absl::string_view text) {
  if (text.size() > kMaxEncodeBytes) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {"text is too long to tokenize", "", absl::StrCat(text.size(), " bytes"),
                  absl::StrCat("at most ", kMaxEncodeBytes, " bytes")});
  }
  if (const std::optional<size_t> bad = FindInvalidUtf8(text)) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {"text is not UTF-8", absl::StrCat("byte ", *bad), "", "send valid UTF-8"});
  }
  return absl::OkStatus();
}

Status PartsError(absl::string_view why) {
  return Error(absl::StatusCode::kInternal, {"tokenizer is incomplete", "", std::string(why), ""});
}

// The bytes of the original from which bytes [begin, end) of `text` were made.
ByteRange SourceOf(const AlignedText& text, uint32_t begin, uint32_t end) {
  if (begin >= end) {
    const uint32_t at = begin > 0 ? text.source[begin - 1].end : text.source[begin].begin;
    return {at, at};
  }
  return {text.source[begin].begin, text.source[end - 1].end};
}

}  // namespace

StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Create(Parts parts) {
  if (parts.model == nullptr) return PartsError("no model");
  const size_t size = parts.bytes.size();
  const auto inside = [size](TokenId id) { return id < size; };
  if (!std::all_of(parts.prefix.begin(), parts.prefix.end(), inside) ||
      !std::all_of(parts.suffix.begin(), parts.suffix.end(), inside)) {
    return PartsError("a special token's id is outside the vocabulary");
  }
  if ((parts.bos && !inside(*parts.bos)) || (parts.eos && !inside(*parts.eos))) {
    return PartsError("the BOS or EOS id is outside the vocabulary");
  }
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(parts)));
}

std::optional<TokenId> Tokenizer::TokenToId(absl::string_view text) const {
  if (const std::optional<TokenId> id = parts_.added.Find(text)) return id;
  return parts_.model->Find(text);
}

StatusOr<std::vector<TokenId>> Tokenizer::Encode(absl::string_view text,
                                                 const EncodeOptions& options) const {
  std::vector<ByteRange> ranges;
  if (options.parse_special == ParseSpecial::kOn && text.size() <= kMaxEncodeBytes) {
    ranges.push_back({0, static_cast<uint32_t>(text.size())});
  }
  Encoding encoding;
  TESSERA_RETURN_IF_ERROR(
      EncodeInto(text, ranges, options.add_special, Alignment::kOff, &encoding));
  return std::move(encoding.ids);
}

StatusOr<Encoding> Tokenizer::EncodeWithRanges(absl::string_view text,
                                               const EncodeOptions& options) const {
  std::vector<ByteRange> ranges;
  if (options.parse_special == ParseSpecial::kOn && text.size() <= kMaxEncodeBytes) {
    ranges.push_back({0, static_cast<uint32_t>(text.size())});
  }
  Encoding encoding;
  TESSERA_RETURN_IF_ERROR(
      EncodeInto(text, ranges, options.add_special, Alignment::kTracked, &encoding));
  return encoding;
}

StatusOr<std::vector<TokenId>> Tokenizer::EncodeSegments(std::span<const TextSegment> segments,
                                                         AddSpecial add_special) const {
  std::string text;
  std::vector<ByteRange> ranges;
  size_t total = 0;
  for (const TextSegment& segment : segments) {
    // Checked before the copy, and small enough that the sum cannot overflow.
    if (segment.text.size() > kMaxEncodeBytes || total + segment.text.size() > kMaxEncodeBytes) {
      return Error(absl::StatusCode::kInvalidArgument,
                   {"rendered prompt is too long to tokenize", "", "",
                    absl::StrCat("at most ", kMaxEncodeBytes, " bytes")});
    }
    total += segment.text.size();
  }
  text.reserve(total);
  for (const TextSegment& segment : segments) {
    const uint32_t begin = static_cast<uint32_t>(text.size());
    text.append(segment.text);
    const uint32_t end = static_cast<uint32_t>(text.size());
    if (segment.origin != TextOrigin::kTemplate || begin == end) continue;
    if (!ranges.empty() && ranges.back().end == begin) {
      ranges.back().end = end;
    } else {
      ranges.push_back({begin, end});
    }
  }
  Encoding encoding;
  TESSERA_RETURN_IF_ERROR(EncodeInto(text, ranges, add_special, Alignment::kOff, &encoding));
  return std::move(encoding.ids);
}

Status Tokenizer::EncodeInto(absl::string_view text, const std::vector<ByteRange>& special_ranges,
                             AddSpecial add_special, Alignment alignment, Encoding* out) const {
  TESSERA_RETURN_IF_ERROR(CheckText(text));
  const bool ranges = alignment == Alignment::kTracked;
  const auto add_fixed = [&](const std::vector<TokenId>& ids, uint32_t at) {
    if (add_special == AddSpecial::kNone) return;
    out->ids.insert(out->ids.end(), ids.begin(), ids.end());
    if (ranges) out->ranges.insert(out->ranges.end(), ids.size(), ByteRange{at, at});
  };
  out->ids.reserve(text.size() / 3 + 8);
  add_fixed(parts_.prefix, 0);
  for (const Fragment& fragment : parts_.added.Split(text, special_ranges)) {
    if (fragment.token.has_value()) {
      out->ids.push_back(*fragment.token);
      if (ranges) out->ranges.push_back(fragment.range);
    } else {
      TESSERA_RETURN_IF_ERROR(EncodeFragment(text, fragment.range, alignment, out));
    }
  }
  add_fixed(parts_.suffix, static_cast<uint32_t>(text.size()));
  return absl::OkStatus();
}

Status Tokenizer::EncodeFragment(absl::string_view text, ByteRange range, Alignment alignment,
                                 Encoding* out) const {
  const FragmentPlace place = range.begin == 0 ? FragmentPlace::kFirst : FragmentPlace::kLater;
  AlignedText aligned =
      AlignedText::From(text.substr(range.begin, range.end - range.begin), range.begin, alignment);
  TESSERA_RETURN_IF_ERROR(Normalize(parts_.normalizer, place, &aligned));
  TESSERA_ASSIGN_OR_RETURN(const Pieces pieces,
                           PreTokenize(parts_.pre_tokenizer, place, std::move(aligned)));
  const absl::string_view whole = pieces.text.text;
  const bool tracked = alignment == Alignment::kTracked;
  for (const ByteRange piece : pieces.ranges) {
    if (piece.begin == piece.end) continue;
    std::vector<TokenId> local;
    TokenSink sink(tracked ? &local : &out->ids,
                   tracked ? TokenSink::Ends::kKept : TokenSink::Ends::kIgnored);
    TESSERA_RETURN_IF_ERROR(
        parts_.model->Encode(whole.substr(piece.begin, piece.end - piece.begin), &sink));
    if (!tracked) continue;
    uint32_t begin = piece.begin;
    for (size_t i = 0; i < local.size(); ++i) {
      const uint32_t end = piece.begin + sink.ends()[i];
      out->ids.push_back(local[i]);
      out->ranges.push_back(SourceOf(pieces.text, begin, end));
      begin = std::max(begin, end);
    }
  }
  return absl::OkStatus();
}

StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromAssets(
    const std::map<std::string, std::string>& assets) {
  const auto find = [&](const char* name) -> const std::string* {
    const auto it = assets.find(name);
    return it == assets.end() ? nullptr : &it->second;
  };
  const std::string* config = find("tokenizer_config.json");
  const absl::string_view config_text = config != nullptr ? *config : absl::string_view();
  if (const std::string* json = find("tokenizer.json")) {
    return TokenizerFromHuggingFace(*json, config_text);
  }
  if (const std::string* model = find("tokenizer.model")) {
    return TokenizerFromSentencePiece(*model, config_text);
  }
  if (const std::string* json = find("gguf_vocabulary.json")) {
    TESSERA_ASSIGN_OR_RETURN(const GgufVocabulary vocabulary, ParseGgufVocabulary(*json));
    return TokenizerFromGgufVocabulary(vocabulary);
  }
  if (const std::string* json = find("byte_vocabulary.json")) {
    return TokenizerFromByteVocabulary(*json);
  }
  return Error(absl::StatusCode::kNotFound,
               {"chain has no tokenizer", "assets", "none of its assets is a vocabulary",
                "import it with tokenizer.json, tokenizer.model or a GGUF file"});
}

}  // namespace tessera::server
