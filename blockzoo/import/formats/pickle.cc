// PyTorch's pickled weights: refused with the command that converts them, since reading a pickle
// runs the program inside it.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "blockzoo/import/format.h"
#include "blockzoo/import/huggingface_metadata.h"
#include "blockzoo/zoo_io.h"

namespace tessera::blockzoo {
namespace {

bool IsPickle(const std::string& path) {
  const PathKind kind = KindOfPath(path);
  return kind == PathKind::kDirectory ? HasOnlyPickledWeights(path)
                                      : kind == PathKind::kFile && IsPickleName(path);
}

// A Python text in a shell's double quotes.
std::string PythonText(absl::string_view text) {
  return absl::StrCat(
      "'",
      absl::StrReplaceAll(
          text, {{"\\", "\\\\\\\\"}, {"'", "\\\\'"}, {"\"", "\\\""}, {"$", "\\$"}, {"`", "\\`"}}),
      "'");
}

StatusOr<std::unique_ptr<Checkpoint>> Refuse(const std::string& path) {
  const bool directory = KindOfPath(path) == PathKind::kDirectory;
  const std::string from = PythonText(path);
  const std::string to = PythonText(path + "-safetensors");
  const std::string command =
      directory
          ? absl::StrCat(
                "python3 -c \"from transformers import AutoModelForCausalLM as M, "
                "AutoTokenizer as T; M.from_pretrained(",
                from, ", torch_dtype='auto').save_pretrained(", to,
                ", safe_serialization=True); T.from_pretrained(", from, ").save_pretrained(", to,
                ")\"")
          : absl::StrCat("python3 -c \"import os, torch, safetensors.torch as s; os.makedirs(", to,
                         ", exist_ok=True); w = torch.load(", from,
                         ", map_location='cpu', weights_only=True); s.save_file({k: "
                         "v.clone().contiguous() for k, v in w.items()}, ",
                         to,
                         " + '/model.safetensors')\" and put the model's config.json and "
                         "tokenizer files beside model.safetensors");
  return Error(absl::StatusCode::kUnimplemented,
               {.what = "pickled PyTorch weights are not read",
                .where = path,
                .why = "a pickle is a program, which reading it would run",
                .fix = absl::StrCat("convert it, then import the new directory: ", command)});
}

}  // namespace

void Register_pickle(FormatRegistry& registry) {
  registry.Add({.name = "pickle", .recognises = IsPickle, .open = Refuse});
}

}  // namespace tessera::blockzoo
