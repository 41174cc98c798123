// A context of the CPU backend where products may be made in more ways than one.
#pragma once

#include <cstddef>

#include "kernels/cpu/tile_costs.h"
#include "kernels/exec_context.h"

namespace tessera::kernels::cpu {

class CpuContext final : public ExecContext {
 public:
  CpuContext(ThreadPool& pool, size_t scratch_bytes, const TileCosts& tiles)
      : ExecContext(pool, scratch_bytes), tiles_(tiles) {}
  [[nodiscard]] const TileCosts& tiles() const { return tiles_; }

 private:
  const TileCosts tiles_;
};

}  // namespace tessera::kernels::cpu
