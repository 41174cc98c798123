// The parallel block: x += attention(norm x) + ffn(ffn_norm x), both of the same x (GPT-NeoX,
// Cohere). Without a tensor ffn_norm the two share the norm.
#include "blockzoo/layer_block.h"

namespace tessera::blockzoo {

void Register_parallel(BlockTypeRegistry& registry) {
  registry.Add({.name = "parallel", .bind = [](const BindContext& context) {
                  return LayerBlock::Bind(context, LayerBlock::Parts::kParallel);
                }});
}

}  // namespace tessera::blockzoo
