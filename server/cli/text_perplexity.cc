#include "server/cli/text_perplexity.h"

#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "config/foundation/text.h"
#include "server/cli/zoo_makers.h"
#include "server/core/local_model.h"
#include "server/text/tokenizer.h"

namespace tessera::server::cli {
namespace {

StatusOr<std::string> ReadStart(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxEncodeBytes + 1, '\0');
  if (file.is_open()) file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.is_open() || file.bad()) {
    return Error(absl::StatusCode::kNotFound,
                 {.what = absl::StrCat("cannot read ", Quoted(path)), .fix = "give a text file"});
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxEncodeBytes) {
    const size_t line_end = text.rfind('\n', kMaxEncodeBytes - 1);
    text.resize(line_end == std::string::npos ? kMaxEncodeBytes : line_end + 1);
  }
  if (text.empty()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat(Quoted(path), " is empty"), .fix = "give a text file"});
  }
  return text;
}

// A text as ids with and without what the model puts around one: llama-perplexity begins each piece
// with the token that a model begins a text with.
struct EncodedText {
  std::vector<TokenId> ids;
  std::optional<TokenId> begin;
};

EncodedText Compare(std::vector<TokenId> ids, const std::vector<TokenId>& plain) {
  EncodedText encoded;
  if (!ids.empty() && ids.size() > plain.size() &&
      (plain.empty() || ids.front() != plain.front())) {
    encoded.begin = ids.front();
  }
  encoded.ids = std::move(ids);
  return encoded;
}

StatusOr<Perplexity> Measure(const EncodedText& encoded, const TextPerplexity& text,
                             const TokenScorer& score) {
  PerplexityOptions options;
  options.context = text.context;
  options.max_tokens = text.max_tokens;
  options.begin = encoded.begin;
  return WithProgress(
      "measuring",
      [&](const blockzoo::ZooProgress& progress) {
        options.progress = progress;
        return MeasurePerplexity(encoded.ids, options, score);
      },
      blockzoo::ProgressUnit::kTokens);
}

}  // namespace

std::string Render(const PerplexityCost& cost) {
  return absl::StrFormat(
      "perplexity %.4f, of the source %.4f: %+.2f %% (%d tokens, contexts of %d)\n",
      cost.made.value, cost.source.value, 100 * (cost.made.value / cost.source.value - 1),
      cost.made.scored, cost.context);
}

StatusOr<Perplexity> MeasureInZoo(const std::shared_ptr<const Settings>& settings,
                                  blockzoo::Zoo* zoo, const std::string& chain,
                                  const TextPerplexity& text) {
  TESSERA_ASSIGN_OR_RETURN(const std::string content, ReadStart(text.file));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<LocalModel> local,
                           LocalModel::Load(settings, zoo, chain));
  const Tokenizer& tokenizer = *local->model().tokenizer;
  TESSERA_ASSIGN_OR_RETURN(std::vector<TokenId> ids, tokenizer.Encode(content, EncodeOptions()));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<TokenId> plain,
                           tokenizer.Encode(content, {.add_special = AddSpecial::kNone}));
  return Measure(
      Compare(std::move(ids), plain), text,
      [&local](std::span<const TokenId> part, uint32_t from) { return local->Score(part, from); });
}

StatusOr<Perplexity> MeasureByDaemon(Client& client, const std::string& model,
                                     const TextPerplexity& text) {
  TESSERA_ASSIGN_OR_RETURN(const std::string content, ReadStart(text.file));
  std::vector<TokenId> ids[2];
  for (const Client::SpecialTokens special :
       {Client::SpecialTokens::kAdd, Client::SpecialTokens::kLeaveOut}) {
    TESSERA_ASSIGN_OR_RETURN(const Client::Tokens tokens, client.Tokenize(model, content, special));
    for (const ScoredToken& token : tokens.tokens) {
      ids[special == Client::SpecialTokens::kAdd ? 0 : 1].push_back(token.id);
    }
  }
  return Measure(Compare(std::move(ids[0]), ids[1]), text,
                 [&client, &model](std::span<const TokenId> part, uint32_t from) {
                   return client.Score(model, part.first(from), part.subspan(from));
                 });
}

}  // namespace tessera::server::cli
