// Blocks made of an attention part, a feed-forward part, or both.
#pragma once

#include <memory>
#include <optional>

#include "blockzoo/attention_part.h"
#include "blockzoo/block_type.h"
#include "blockzoo/ffn_part.h"

namespace tessera::blockzoo {

class LayerBlock final : public BoundBlock {
 public:
  enum class Parts : uint8_t {
    kAttention,  // x += attention(x)
    kFfn,        // x += ffn(x)
    kParallel,   // x += attention(x) + ffn(x); tensors of the latter have the prefix "ffn_"
  };
  [[nodiscard]] static StatusOr<std::unique_ptr<BoundBlock>> Bind(const BindContext& context,
                                                                  Parts parts);

  void Run(const Launch& launch) const override;

  [[nodiscard]] const AttentionPart& attention() const { return *attention_; }
  [[nodiscard]] const FfnPart& ffn() const { return *ffn_; }

 private:
  std::optional<AttentionPart> attention_;
  std::optional<FfnPart> ffn_;
};

}  // namespace tessera::blockzoo
