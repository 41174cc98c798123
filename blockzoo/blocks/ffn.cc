// The feed-forward block: x += down(activation(gate(norm x)) * up(norm x)), or without a gate
// x += down(activation(up(norm x))).
#include "blockzoo/layer_block.h"

namespace tessera::blockzoo {

void Register_ffn(BlockTypeRegistry& registry) {
  registry.Add({.name = "ffn", .bind = [](const BindContext& context) {
                  return LayerBlock::Bind(context, LayerBlock::Parts::kFfn);
                }});
}

}  // namespace tessera::blockzoo
