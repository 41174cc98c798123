// tokenizer.json from anywhere: what can be loaded encodes and decodes without harm. What follows
// a zero byte is a text to encode; without one, the file itself is the text.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/tokenizer_checks.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  const absl::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t zero = all.find('\0');
  const absl::string_view json = all.substr(0, zero);
  const absl::string_view text = zero == absl::string_view::npos ? all : all.substr(zero + 1);
  const auto tokenizer = server::TokenizerFromHuggingFace(json, "");
  if (tokenizer.ok()) fuzz::CheckTokenizer(**tokenizer, text);
  // The same bytes as the file beside it.
  static constexpr absl::string_view kSmall =
      R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},)"
      R"("added_tokens":[{"id":3,"content":"<s>","special":true}]})";
  const auto configured = server::TokenizerFromHuggingFace(kSmall, json);
  if (configured.ok()) fuzz::CheckTokenizer(**configured, text);
  return 0;
}
