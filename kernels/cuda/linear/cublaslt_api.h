// cuBLASLt, found when the process starts rather than when it is linked: the library is half a
// gigabyte, and a machine that serves on the CPU does not have it.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <string>
#include <vector>

#include "config/foundation/status.h"

namespace tessera::kernels::cuda {

// The functions that the engine calls, with the types of the header this was compiled with. The
// library stays loaded until the process ends; copies are free.
struct CublasLt {
  std::string path;    // what was loaded, as given to the loader
  size_t version = 0;  // major * 10000 + minor * 100 + patch

  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetStatusString) status_string = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulDescInit_internal) desc_init = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutInit_internal) layout_init = nullptr;
  decltype(&cublasLtMatmulPreferenceInit_internal) preference_init = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulAlgoInit) algo_init = nullptr;
  decltype(&cublasLtMatmulAlgoCheck) algo_check = nullptr;
  decltype(&cublasLtMatmulAlgoConfigSetAttribute) algo_set = nullptr;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) algo_get = nullptr;
};

// Looks for libcublasLt.so.<major of the header> in `directories`, in order, then where the loader
// looks by itself, then in the toolkit's usual folders. Another major version is not taken: its
// structures may differ. NOT_FOUND names every place that was tried and why it failed.
[[nodiscard]] StatusOr<CublasLt> LoadCublasLt(const std::vector<std::string>& directories);

}  // namespace tessera::kernels::cuda
