#include "server/cli/dtype_words.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace tessera::server::cli {
namespace {

// GGUF's types are written as everybody writes them.
std::string WordOf(kernels::DType dtype) {
  const std::string word = absl::AsciiStrToLower(kernels::InfoOf(dtype).name);
  return kernels::IsBlockFormat(dtype) ? word : absl::StrReplaceAll(word, {{"_", "-"}});
}

}  // namespace

std::vector<std::string> DTypeWords(TakesDType takes) {
  std::vector<std::string> words;
  for (int i = 0; i < kernels::kWeightTypeCount; ++i) {
    const auto dtype = static_cast<kernels::DType>(i);
    if (takes(dtype)) words.push_back(WordOf(dtype));
  }
  return words;
}

StatusOr<kernels::DType> DTypeOfWord(absl::string_view option, absl::string_view word,
                                     TakesDType takes) {
  for (int i = 0; i < kernels::kWeightTypeCount; ++i) {
    const auto dtype = static_cast<kernels::DType>(i);
    if (takes(dtype) && WordOf(dtype) == word) return dtype;
  }
  return Error(
      absl::StatusCode::kInvalidArgument,
      {.what = absl::StrCat("there is no element type \"", word, "\" for this"),
       .where = std::string(option),
       .why = absl::StrCat("the known ones are ", absl::StrJoin(DTypeWords(takes), ", "))});
}

}  // namespace tessera::server::cli
