// Look-up in the tables of formats, architectures and quantized layouts.
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "blockzoo/import/architecture.h"
#include "blockzoo/import/format.h"
#include "blockzoo/import/quantization.h"
#include "blockzoo/zoo_io.h"

namespace tessera::blockzoo {

StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpoint(const std::string& path) {
  FormatRegistry registry;
  RegisterFormats(registry);
  std::vector<std::string> names;
  for (const Format& format : registry.formats()) {
    if (format.recognises(path)) return format.open(path);
    names.push_back(format.name);
  }
  if (KindOfPath(path) == PathKind::kMissing) {
    return Error(absl::StatusCode::kNotFound,
                 {.what = "there is no such file or directory", .where = path});
  }
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = "the checkpoint's format is not known",
                .where = path,
                .why = absl::StrCat("known formats: ", absl::StrJoin(names, ", ")),
                .fix = "name a GGUF file, or a directory with config.json and model.safetensors"});
}

StatusOr<Architecture> FindArchitecture(const Checkpoint& checkpoint) {
  TESSERA_ASSIGN_OR_RETURN(const std::string name, checkpoint.architecture());
  ArchitectureRegistry registry;
  RegisterArchitectures(registry);
  std::optional<Architecture> found;
  std::vector<std::string> known;
  for (const Architecture& architecture : registry.architectures()) {
    for (const std::string& alias : architecture.aliases) {
      known.push_back(alias);
      if (name != alias) continue;
      if (architecture.claims == nullptr) {
        found = architecture;
      } else if (architecture.claims(checkpoint)) {
        return architecture;
      }
    }
  }
  if (found.has_value()) return *found;
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat("the architecture ", name, " is not supported"),
                .why = absl::StrCat("known architectures: ", absl::StrJoin(known, ", "))});
}

StatusOr<Quantization> FindQuantization(absl::string_view method) {
  QuantizationRegistry registry;
  RegisterQuantizations(registry);
  std::vector<std::string> known;
  for (const Quantization& quantization : registry.quantizations()) {
    if (method == quantization.method) return quantization;
    known.push_back(quantization.method);
  }
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat("the quantization \"", method, "\" is not supported"),
                .where = "quantization_config.quant_method",
                .why = absl::StrCat("known quantizations: ", absl::StrJoin(known, ", ")),
                .fix = "import the model's unquantized form and use `tessera zoo quantize`"});
}

}  // namespace tessera::blockzoo
