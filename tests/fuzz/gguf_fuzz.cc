// The GGUF parser and everything read from a parsed file.
#include <cstddef>
#include <cstdint>

#include "blockzoo/import/gguf_metadata.h"
#include "blockzoo/import/gguf_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera::blockzoo;
  const auto file = ParseGguf(std::as_bytes(std::span(data, size)));
  if (!file.ok()) return 0;
  uint64_t sum = 0;
  for (const auto& [name, tensor] : file->tensors) {
    if (!tensor.bytes.empty()) {
      sum +=
          static_cast<uint64_t>(tensor.bytes.front()) + static_cast<uint64_t>(tensor.bytes.back());
    }
  }
  static volatile uint64_t sink;
  sink = sum;
  static_cast<void>(sink);
  static_cast<void>(GgufSettings(*file));
  static_cast<void>(GgufVocabularyJson(*file));
  static_cast<void>(GgufChatTemplate(*file));
  static_cast<void>(GgufEndTokenIds(*file));
  return 0;
}
