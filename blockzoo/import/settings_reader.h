// A checkpoint's settings under the names of its format, and what was read of them: a setting that
// changes what a model computes, and that its architecture has not read, is refused by name.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "blockzoo/import/checkpoint.h"

namespace tessera::blockzoo {

// A setting's name in each format; null where the format has none. Alternatives are separated by
// '|', the first that is there counts. GGUF names are without the architecture's prefix; in
// Hugging Face files of several models, those of the text model ("text_config") come first.
struct Key {
  const char* gguf = nullptr;
  const char* huggingface = nullptr;
};

// UNIMPLEMENTED naming the setting, or INVALID_ARGUMENT with the reason.
[[nodiscard]] Status UnsupportedSetting(absl::string_view what, absl::string_view setting);
[[nodiscard]] Status InvalidSetting(absl::string_view setting, absl::string_view why);

// One thread; the checkpoint must outlive it. Ranges are inclusive; errors name the setting.
class SettingsReader {
 public:
  explicit SettingsReader(const Checkpoint& checkpoint);

  [[nodiscard]] bool gguf() const { return gguf_; }
  [[nodiscard]] const Checkpoint& checkpoint() const { return checkpoint_; }

  // The name of the setting in the file; of the first alternative when none is there, empty when
  // the format has no such setting.
  [[nodiscard]] std::string Name(const Key& key) const;
  [[nodiscard]] bool Has(const Key& key) const;
  // NOT_FOUND when the setting is missing.
  [[nodiscard]] StatusOr<int64_t> Integer(const Key& key, int64_t low, int64_t high);
  [[nodiscard]] StatusOr<int64_t> IntegerOr(const Key& key, int64_t absent, int64_t low,
                                            int64_t high);
  [[nodiscard]] StatusOr<double> Number(const Key& key, double low, double high);
  [[nodiscard]] StatusOr<double> NumberOr(const Key& key, double absent, double low, double high);
  [[nodiscard]] StatusOr<std::string> TextOr(const Key& key, absl::string_view absent);
  // A list of numbers or of bools; empty when absent.
  [[nodiscard]] StatusOr<std::vector<double>> Numbers(const Key& key);
  // A list of texts ("layer_types"); empty when absent.
  [[nodiscard]] std::vector<std::string> Texts(const Key& key);

  // The setting is of no consequence for this architecture.
  void Honour(const Key& key);
  // UNIMPLEMENTED naming the first setting that has an effect and that nobody has read.
  [[nodiscard]] Status CheckEffects() const;

 private:
  // Marks the setting as read.
  std::string Take(const Key& key);

  const Checkpoint& checkpoint_;
  const Attributes& settings_;
  bool gguf_;
  std::string prefix_;
  std::set<std::string> read_;
};

}  // namespace tessera::blockzoo
