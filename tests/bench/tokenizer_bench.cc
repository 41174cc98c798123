// Megabytes of text a second that vocabularies encode, on one thread.
//
//   tokenizer_bench TEXT VOCABULARY.gguf...
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "blockzoo/import/gguf_metadata.h"
#include "blockzoo/import/gguf_reader.h"
#include "server/text/tokenizer.h"

namespace {

using namespace tessera;  // NOLINT(build/namespaces): a program of one file

std::string ReadFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

StatusOr<std::shared_ptr<const server::Tokenizer>> Open(const std::string& file) {
  TESSERA_ASSIGN_OR_RETURN(const auto gguf, blockzoo::ParseGguf(std::as_bytes(std::span(file))));
  TESSERA_ASSIGN_OR_RETURN(const std::string json, blockzoo::GgufVocabularyJson(gguf));
  return server::TokenizerFromAssets({{"gguf_vocabulary.json", json}});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: tokenizer_bench TEXT VOCABULARY.gguf...\n");
    return 2;
  }
  const std::string text = ReadFile(argv[1]);
  for (int i = 2; i < argc; ++i) {
    const auto tokenizer = Open(ReadFile(argv[i]));
    if (!tokenizer.ok()) {
      std::fprintf(stderr, "%s: %s\n", argv[i], tokenizer.status().ToString().c_str());
      return 1;
    }
    double seconds = 0;
    for (int round = 0; round < 2; ++round) {  // the first warms the caches
      const auto begin = std::chrono::steady_clock::now();
      const auto ids =
          (*tokenizer)->Encode(text, {server::AddSpecial::kNone, server::ParseSpecial::kOff});
      if (!ids.ok()) return 1;
      seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    }
    std::printf("%s: %.1f MB/s\n", argv[i], 1e-6 * static_cast<double>(text.size()) / seconds);
  }
  return 0;
}
