// What a build without CUDA says of it.
#include "kernels/backend.h"

#ifndef TESSERA_CUDA

namespace tessera::kernels {

std::vector<std::string> CudaDevices() { return {}; }

StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(int /*device*/, std::string /*costs_file*/) {
  return Error(
      absl::StatusCode::kUnimplemented,
      {.what = "this binary has no CUDA backend",
       .why = "it was built with TESSERA_CUDA=OFF",
       .fix = "build it with -DTESSERA_CUDA=ON (CUDA toolkit 13), or set engine.device: cpu"});
}

}  // namespace tessera::kernels

#endif
