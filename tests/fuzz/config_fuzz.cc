// Settings from any text: both readers, binding, rules, dump and read-back.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/string_view.h"
#include "config/loader.h"

namespace {

void LoadAndDump(absl::string_view text, tessera::TextFormat format) {
  const tessera::LoadOutcome outcome = tessera::LoadSettingsText(text, format, "fuzz", {});
  if (!outcome.ok()) {
    if (outcome.settings != nullptr || outcome.status().ok()) std::abort();
    return;
  }
  const std::string dump = tessera::Dump(*outcome.settings, outcome.origins);
  const tessera::LoadOutcome again =
      tessera::LoadSettingsText(dump, tessera::TextFormat::kYaml, "dump", {});
  if (!again.ok() || !tessera::Diff(*outcome.settings, *again.settings).empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  LoadAndDump(text, tessera::TextFormat::kYaml);
  LoadAndDump(text, tessera::TextFormat::kJson);
  // The same bytes as an override: NAME=VALUE.
  (void)tessera::LoadSettings("", {{}, {std::string(text)}});
  return 0;
}
