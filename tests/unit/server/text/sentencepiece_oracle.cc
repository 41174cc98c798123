#include "tests/unit/server/text/sentencepiece_oracle.h"

#include <sentencepiece_processor.h>

namespace tessera::testing {

struct SentencePieceOracle::Impl {
  sentencepiece::SentencePieceProcessor processor;
  bool loaded = false;
};

SentencePieceOracle::SentencePieceOracle(const std::string& model_path)
    : impl_(std::make_unique<Impl>()) {
  impl_->loaded = impl_->processor.Load(model_path).ok();
}

SentencePieceOracle::~SentencePieceOracle() = default;

bool SentencePieceOracle::loaded() const { return impl_->loaded; }

std::vector<uint32_t> SentencePieceOracle::Encode(const std::string& text) const {
  std::vector<int> ids;
  if (!impl_->processor.Encode(text, &ids).ok()) return {};
  return {ids.begin(), ids.end()};
}

}  // namespace tessera::testing
