// Patterns of tokenizer.json: rewritten for the library, compiled, and searched with.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "absl/strings/string_view.h"
#include "server/text/regex.h"
#include "server/text/regex_syntax.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera::server;  // NOLINT: the piece under test
  constexpr absl::string_view kSubject = "Ab 12\n\u00e9\u4f60 [x]&&-";
  const absl::string_view pattern(reinterpret_cast<const char*>(data), size);
  const auto regex = Regex::Compile(pattern, PatternEngine::kLibrary);
  // What compiles was understood, so that its syntax alone is too.
  if (!regex.ok()) return 0;
  if (!ToLibrarySyntax(pattern).ok()) abort();
  for (size_t from = 0; from <= kSubject.size();) {
    const auto match = regex->Find(kSubject, from);
    if (!match.ok() || !match->found) break;
    if (match->begin < from || match->end < match->begin || match->end > kSubject.size()) abort();
    if (match->end == from) break;
    from = match->end;
  }
  return 0;
}
