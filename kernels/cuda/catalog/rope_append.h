// What the ops of rotation and of attention that rotates share.
#pragma once

#include "kernels/cuda/attention/rope_append.h"
#include "kernels/ops/rope_append.h"

namespace tessera::kernels::cuda {

[[nodiscard]] RopeAppendArgs RopeAppendArgsOf(const RopeAppendOp::Params& p);
// "" or what the device's kernels do not support.
[[nodiscard]] std::string MissingRopeAppendOp(const RopeAppendOp::Desc& desc);

}  // namespace tessera::kernels::cuda
