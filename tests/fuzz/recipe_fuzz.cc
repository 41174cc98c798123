// Recipes of synthetic tensors and the byte vocabulary, as they lie in a zoo that others wrote.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "blockzoo/synthetic_recipe.h"
#include "server/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto recipe = tessera::blockzoo::ParseSyntheticRecipe(text);
  if (recipe.ok()) {
    if (tessera::blockzoo::CanonicalText(*recipe) != text) abort();
    const auto generator = tessera::blockzoo::GeneratorOf(*recipe);
    if (!generator.ok()) abort();
    static_cast<void>(tessera::kernels::SyntheticWord(*generator, generator->bytes / 8));
    static_cast<void>(tessera::kernels::SyntheticWord(*generator, generator->bytes / 4));
  }
  static_cast<void>(tessera::server::TokenizerFromByteVocabulary(text));
  return 0;
}
