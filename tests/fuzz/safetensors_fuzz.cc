// The safetensors header: plain files, and files whose header the fuzzer writes without its size.
#include <cstddef>
#include <cstdint>
#include <string>

#include "blockzoo/import/huggingface_metadata.h"
#include "blockzoo/import/safetensors_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera::blockzoo;
  static_cast<void>(ParseSafetensors(std::as_bytes(std::span(data, size))));
  const std::string text(reinterpret_cast<const char*>(data), size);
  const uint64_t header_bytes = size;
  const std::string file =
      std::string(reinterpret_cast<const char*>(&header_bytes), 8) + text + std::string(64, 'x');
  static_cast<void>(ParseSafetensors(std::as_bytes(std::span(file.data(), file.size()))));
  static_cast<void>(ParseShardIndex(text));
  const auto settings = HuggingFaceSettings(text);
  if (settings.ok()) {
    static_cast<void>(HuggingFaceEndTokenIds(
        *settings, {{"tokenizer_config.json", text}, {"tokenizer.json", text}}));
  }
  return 0;
}
