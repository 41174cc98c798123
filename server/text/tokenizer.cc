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

bool CoversAll(const std::vector<ByteRange>& ranges, absl::string_view text) {
  return ranges.size() == 1 && ranges[0].begin == 0 && ranges[0].end == text.size();
}

// The stretches of `text` whose bytes all come from inside `ranges`.
std::vector<ByteRange> RangesInside(const AlignedText& text, const std::vector<ByteRange>& ranges) {
  std::vector<ByteRange> inside;
  size_t next = 0;
  for (uint32_t i = 0; i < text.source.size(); ++i) {
    const ByteRange source = text.source[i];
    while (next < ranges.size() && ranges[next].end <= source.begin) ++next;
    const bool within = next < ranges.size() && source.begin < source.end &&
                        ranges[next].begin <= source.begin && source.end <= ranges[next].end;
    if (!within) continue;
    if (!inside.empty() && inside.back().end == i) {
      ++inside.back().end;
    } else {
      inside.push_back({i, i + 1});
    }
  }
  return inside;
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
  if (const std::optional<TokenId> id = parts_.normalized_added.Find(text)) return id;
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
  // Where a control token may stand in normalized text is told by the sources of its bytes.
  const bool partly = !special_ranges.empty() && !CoversAll(special_ranges, text);
  if (partly && parts_.normalized_added.has_special()) alignment = Alignment::kTracked;
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
      TESSERA_RETURN_IF_ERROR(EncodeFragment(text, fragment.range, special_ranges, alignment, out));
    }
  }
  add_fixed(parts_.suffix, static_cast<uint32_t>(text.size()));
  return absl::OkStatus();
}

Status Tokenizer::EncodeFragment(absl::string_view text, ByteRange range,
                                 const std::vector<ByteRange>& special_ranges, Alignment alignment,
                                 Encoding* out) const {
  const FragmentPlace place = range.begin == 0 ? FragmentPlace::kFirst : FragmentPlace::kLater;
  AlignedText aligned =
      AlignedText::From(text.substr(range.begin, range.end - range.begin), range.begin, alignment);
  TESSERA_RETURN_IF_ERROR(Normalize(parts_.normalizer, place, &aligned));
  if (parts_.normalized_added.tokens().empty()) {
    return EncodeNormalized(std::move(aligned), place, out);
  }
  std::vector<ByteRange> allowed;
  if (CoversAll(special_ranges, text)) {
    allowed.push_back({0, static_cast<uint32_t>(aligned.text.size())});
  } else if (!special_ranges.empty() && aligned.tracked()) {
    allowed = RangesInside(aligned, special_ranges);
  }
  for (const Fragment& fragment : parts_.normalized_added.Split(aligned.text, allowed)) {
    const auto [begin, end] = fragment.range;
    if (!fragment.token.has_value()) {
      const FragmentPlace part = begin == 0 ? place : FragmentPlace::kLater;
      TESSERA_RETURN_IF_ERROR(EncodeNormalized(aligned.Part(begin, end), part, out));
      continue;
    }
    out->ids.push_back(*fragment.token);
    if (aligned.tracked()) out->ranges.push_back(SourceOf(aligned, begin, end));
  }
  return absl::OkStatus();
}

Status Tokenizer::EncodeNormalized(AlignedText text, FragmentPlace place, Encoding* out) const {
  const bool tracked = text.tracked();
  TESSERA_ASSIGN_OR_RETURN(const Pieces pieces,
                           PreTokenize(parts_.pre_tokenizer, place, std::move(text)));
  const absl::string_view whole = pieces.text.text;
  TokenSink direct(&out->ids, TokenSink::Ends::kIgnored);
  for (const ByteRange piece : pieces.ranges) {
    if (piece.begin == piece.end) continue;
    const absl::string_view bytes = whole.substr(piece.begin, piece.end - piece.begin);
    if (!tracked) {
      TESSERA_RETURN_IF_ERROR(parts_.model->Encode(bytes, &direct));
      continue;
    }
    std::vector<TokenId> local;
    TokenSink sink(&local, TokenSink::Ends::kKept);
    TESSERA_RETURN_IF_ERROR(parts_.model->Encode(bytes, &sink));
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
