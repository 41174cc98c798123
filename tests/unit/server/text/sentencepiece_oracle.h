// The SentencePiece library as an oracle, apart from our headers: its header has its own
// absl::string_view.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace tessera::testing {

class SentencePieceOracle {
 public:
  // Null inside when the model does not load.
  explicit SentencePieceOracle(const std::string& model_path);
  ~SentencePieceOracle();
  [[nodiscard]] bool loaded() const;
  [[nodiscard]] std::vector<uint32_t> Encode(const std::string& text) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::testing
