#include "server/core/text_ops.h"

#include <unicode/uchar.h>

#include <cstddef>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/tokenizer.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

EncodeOptions OptionsOf(const PromptSpec& prompt) {
  EncodeOptions options;
  if (prompt.add_special_tokens && !*prompt.add_special_tokens) {
    options.add_special = AddSpecial::kNone;
  }
  if (prompt.parse_special_tokens) options.parse_special = ParseSpecial::kOn;
  return options;
}

Status CheckIds(const LoadedModel& model, const std::vector<TokenId>& ids,
                absl::string_view field) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < model.vocab) continue;
    return InvalidFields(
        {{absl::StrCat(field, "[", i, "]"),
          absl::StrCat("must be below ", model.vocab, ", the model's vocabulary, is ", ids[i])}});
  }
  return absl::OkStatus();
}

template <typename T>
void Truncate(const PromptSpec& prompt, std::vector<T>* items) {
  if (!prompt.truncate_to || items->size() <= *prompt.truncate_to) return;
  items->erase(items->begin(), items->end() - static_cast<std::ptrdiff_t>(*prompt.truncate_to));
}

// Bytes of `text` before the white space at its end, as Python's str.rstrip leaves them.
size_t EndWithoutSpace(absl::string_view text) {
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = DecodeUtf8(text, at);
    at += point.length;
    const char32_t c = point.value;
    // Python also counts the four separators of ASCII.
    if (!u_isUWhiteSpace(static_cast<UChar32>(c)) && !(c >= 0x1c && c <= 0x1f)) end = at;
  }
  return end;
}

// Errors of a tokenizer concern the text that a client sent.
Status OfText(const Status& status) {
  if (status.code() == absl::StatusCode::kInvalidArgument) {
    return InvalidFields({{"prompt.text", std::string(status.message())}});
  }
  return status;
}

}  // namespace

StatusOr<std::vector<TokenId>> EncodePrompt(const LoadedModel& model, const PromptSpec& prompt) {
  std::vector<TokenId> ids = prompt.token_ids;
  if (prompt.input == PromptSpec::Input::kText) {
    StatusOr<std::vector<TokenId>> encoded =
        model.tokenizer->Encode(prompt.text, OptionsOf(prompt));
    if (!encoded.ok()) return OfText(encoded.status());
    ids = std::move(*encoded);
  }
  // Also of encoded text: a tokenizer may have tokens that the model lacks.
  TESSERA_RETURN_IF_ERROR(CheckIds(model, ids, "prompt.token_ids"));
  Truncate(prompt, &ids);
  return ids;
}

StatusOr<EncodedPair> EncodePair(const LoadedModel& model, const PromptSpec& context,
                                 const PromptSpec& continuation) {
  PromptSpec first = context;
  PromptSpec rest = continuation;
  first.truncate_to.reset();
  rest.add_special_tokens = false;
  const bool texts = first.input == PromptSpec::Input::kText && rest.input == first.input &&
                     rest.parse_special_tokens == first.parse_special_tokens;
  if (texts) {
    const size_t end = EndWithoutSpace(first.text);
    rest.text.insert(0, first.text, end);
    first.text.resize(end);
  }
  TESSERA_ASSIGN_OR_RETURN(std::vector<TokenId> ids, EncodePrompt(model, first));
  size_t from = ids.size();
  std::vector<TokenId> joined;
  if (texts && !first.text.empty()) {
    PromptSpec whole = first;
    whole.text += rest.text;
    TESSERA_ASSIGN_OR_RETURN(joined, EncodePrompt(model, whole));
  }
  if (joined.size() > from) {
    ids = std::move(joined);
  } else {
    StatusOr<std::vector<TokenId>> alone = EncodePrompt(model, rest);
    if (!alone.ok()) return WithFieldName(alone.status(), "prompt", "continuation");
    if (alone->empty()) return InvalidFields({{"continuation", "has no token"}});
    ids.insert(ids.end(), alone->begin(), alone->end());
  }
  if (from == 0) {
    const Tokenizer& tokenizer = *model.tokenizer;
    const std::optional<TokenId> begin = tokenizer.bos() ? tokenizer.bos() : tokenizer.eos();
    if (!begin) {
      return InvalidFields({{"prompt", "has no token, and the model has none that begins a text"}});
    }
    ids.insert(ids.begin(), *begin);
    from = 1;
  }
  if (context.truncate_to && from > *context.truncate_to) {
    const size_t cut = from - *context.truncate_to;
    ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(cut));
    from -= cut;
  }
  return EncodedPair{std::move(ids), static_cast<uint32_t>(from)};
}

StatusOr<std::vector<TokenSpan>> EncodeSpans(const LoadedModel& model, const PromptSpec& prompt) {
  std::vector<TokenSpan> spans;
  if (prompt.input == PromptSpec::Input::kText) {
    StatusOr<Encoding> encoded = model.tokenizer->EncodeWithRanges(prompt.text, OptionsOf(prompt));
    if (!encoded.ok()) return OfText(encoded.status());
    for (size_t i = 0; i < encoded->ids.size(); ++i) {
      spans.push_back({encoded->ids[i], std::string(model.tokens->Of(encoded->ids[i])),
                       encoded->ranges[i].begin});
    }
  } else {
    TESSERA_RETURN_IF_ERROR(CheckIds(model, prompt.token_ids, "prompt.token_ids"));
    for (const TokenId id : prompt.token_ids) {
      spans.push_back({id, std::string(model.tokens->Of(id)), 0});
    }
  }
  Truncate(prompt, &spans);
  return spans;
}

StatusOr<DecodedText> DecodeTokens(const LoadedModel& model, const std::vector<TokenId>& ids,
                                   SpecialTokens special) {
  TESSERA_RETURN_IF_ERROR(CheckIds(model, ids, "ids"));
  const TokenBytes& bytes = model.tokenizer->token_bytes();
  DecodedText decoded;
  Utf8Repair repair;
  bool at_start = true;
  for (const TokenId id : ids) {
    const absl::string_view piece = model.tokens->Of(id);
    absl::StrAppend(&decoded.raw, piece);
    const bool control = id < bytes.size() && bytes.kind(id) == TokenKind::kControl;
    if (control && special == SpecialTokens::kSkip) continue;
    const bool first = at_start && !control && id < bytes.size();
    at_start = at_start && control;
    repair.Append(first ? bytes.First(id) : std::string(piece), &decoded.text);
  }
  repair.Flush(&decoded.text);
  return decoded;
}

}  // namespace tessera::server
