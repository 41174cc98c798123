// Tables of what kernels were measured to cost, that outlive their process in a file.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace tessera::kernels {

// The text of one file. Not thread-safe. One that cannot be written costs the next process its
// time, no more.
class KeptText {
 public:
  // Empty: nothing is kept.
  explicit KeptText(std::string file) : file_(std::move(file)) {}

  // The file's text, the first time that it is called; nullopt later, and where there is no file of
  // at most 4 MiB.
  [[nodiscard]] std::optional<std::string> Load();
  // Writes the file where it is not known to hold `text`.
  void Save(const std::string& text);
  // That it was found to hold `text`.
  void Known(std::string text) { text_ = std::move(text); }

 private:
  const std::string file_;
  bool loaded_ = false;
  std::string text_;
};

// Table has Key, Text(key) and Parse(text, key). Not thread-safe. A file that is missing, of other
// conditions or version, or damaged is as if never written: costs are then measured, and the file
// is written anew.
template <typename Table>
class KeptCosts {
 public:
  explicit KeptCosts(std::string file) : file_(std::move(file)) {}

  // Reads the file, the first time that it is called.
  void Load(const typename Table::Key& key) {
    std::optional<std::string> text = file_.Load();
    if (!text.has_value()) return;
    auto parsed = Table::Parse(*text, key);
    if (!parsed.ok()) return;
    table = *std::move(parsed);
    file_.Known(*std::move(text));
  }
  // Writes the file where the table says more than it.
  void Save(const typename Table::Key& key) { file_.Save(table.Text(key)); }

  Table table;

 private:
  KeptText file_;
};

}  // namespace tessera::kernels
