#include "server/core/text_ops.h"

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
