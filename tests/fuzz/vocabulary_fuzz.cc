// The other vocabularies: gguf_vocabulary.json, and a SentencePiece model.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/tokenizer_checks.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto vocabulary = server::ParseGgufVocabulary(bytes);
  if (vocabulary.ok()) {
    const auto tokenizer = server::TokenizerFromGgufVocabulary(*vocabulary);
    if (tokenizer.ok()) fuzz::CheckTokenizer(**tokenizer, bytes);
  }
  const auto pieces = server::TokenizerFromSentencePiece(bytes, "");
  if (pieces.ok()) fuzz::CheckTokenizer(**pieces, bytes);
  return 0;
}
