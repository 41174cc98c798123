// The record of imported files.
#include <cstddef>
#include <cstdint>

#include "blockzoo/export/source_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera::blockzoo;
  const auto record = ParseSourceRecord({reinterpret_cast<const char*>(data), size});
  if (!record.ok()) return 0;
  // What was read is written and read as the same.
  if (TextOf(*ParseSourceRecord(TextOf(*record))) != TextOf(*record)) __builtin_trap();
  return 0;
}
