// The attention block: x += o(attend(rope(q(norm x)), rope(k(norm x)), v(norm x))), keys and values
// in pages.
#include "blockzoo/layer_block.h"

namespace tessera::blockzoo {

void Register_attention(BlockTypeRegistry& registry) {
  registry.Add({.name = "attention", .bind = [](const BindContext& context) {
                  return LayerBlock::Bind(context, LayerBlock::Parts::kAttention);
                }});
}

}  // namespace tessera::blockzoo
