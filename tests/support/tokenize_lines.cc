// One tokenizer for tests that compare with another implementation.
//
//   tokenize_lines FILE    FILE: tokenizer.json, *.model (SentencePiece) or *.gguf
//
// Requests on standard input: a byte, a 32-bit little-endian count, and that many bytes.
//   'e' text, 's' text with control tokens parsed, 'b' that with BOS and EOS around it
//   'T' as 'e', 'D' as 'd', answered by the time that it took
//                      -> count of ids, ids (32 bits each); UINT32_MAX when the text is refused
//   'd' ids            -> count of bytes, the text that they decode to
//                      -> seconds, as 64 bits of a double
//   'f' nothing        -> nothing: what was answered so far is sent
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "blockzoo/import/gguf_metadata.h"
#include "blockzoo/import/gguf_reader.h"
#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"

namespace {

using namespace tessera;  // NOLINT(build/namespaces): a program of one file

StatusOr<std::map<std::string, std::string>> AssetsOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const std::string kind = std::filesystem::path(path).extension();
  if (kind == ".json") return std::map<std::string, std::string>{{"tokenizer.json", bytes}};
  if (kind == ".model") return std::map<std::string, std::string>{{"tokenizer.model", bytes}};
  TESSERA_ASSIGN_OR_RETURN(const auto gguf, blockzoo::ParseGguf(std::as_bytes(std::span(bytes))));
  TESSERA_ASSIGN_OR_RETURN(const std::string json, blockzoo::GgufVocabularyJson(gguf));
  return std::map<std::string, std::string>{{"gguf_vocabulary.json", json}};
}

StatusOr<std::shared_ptr<const server::Tokenizer>> Open(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(const auto assets, AssetsOf(path));
  return server::TokenizerFromAssets(assets);
}

void Write(const void* data, size_t bytes) { std::fwrite(data, 1, bytes, stdout); }

void WriteSized(const void* data, uint32_t count, size_t bytes) {
  Write(&count, sizeof(count));
  Write(data, bytes);
}

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void Answer(const server::Tokenizer& tokenizer, char command, const std::string& body) {
  const auto begin = std::chrono::steady_clock::now();
  if (command == 'd' || command == 'D') {
    std::vector<TokenId> ids(body.size() / sizeof(TokenId));
    std::memcpy(ids.data(), body.data(), ids.size() * sizeof(TokenId));
    const std::string text = server::Decode(tokenizer.token_bytes(), ids,
                                            {.leading_space = server::LeadingSpace::kStrip});
    const double seconds = SecondsSince(begin);
    if (command == 'D') return Write(&seconds, sizeof(seconds));
    return WriteSized(text.data(), static_cast<uint32_t>(text.size()), text.size());
  }
  const server::EncodeOptions options{
      command == 'b' ? server::AddSpecial::kDefault : server::AddSpecial::kNone,
      command == 's' || command == 'b' ? server::ParseSpecial::kOn : server::ParseSpecial::kOff};
  const auto ids = tokenizer.Encode(body, options);
  const double seconds = SecondsSince(begin);
  if (command == 'T') return Write(&seconds, sizeof(seconds));
  if (!ids.ok()) return WriteSized(nullptr, UINT32_MAX, 0);
  WriteSized(ids->data(), static_cast<uint32_t>(ids->size()), ids->size() * sizeof(TokenId));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenize_lines FILE\n");
    return 2;
  }
  const auto tokenizer = Open(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  std::string body;
  for (int command = std::getchar(); command != EOF; command = std::getchar()) {
    uint32_t count = 0;
    if (std::fread(&count, sizeof(count), 1, stdin) != 1) return 1;
    body.resize(count);
    if (std::fread(body.data(), 1, count, stdin) != count) return 1;
    if (command == 'f') {
      std::fflush(stdout);
    } else {
      Answer(**tokenizer, static_cast<char>(command), body);
    }
  }
  return 0;
}
