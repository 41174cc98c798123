#include "kernels/cuda/linear/cublaslt_api.h"

#include <dlfcn.h>
#include <glob.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tessera::kernels::cuda {
namespace {

std::string LibraryName() { return absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR); }

// Folders that match `pattern`, in alphabetical order.
std::vector<std::string> Expand(const std::string& pattern) {
  std::vector<std::string> paths;
  glob_t found;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  globfree(&found);
  return paths;
}

std::vector<std::string> PlacesToTry(const std::vector<std::string>& directories) {
  std::vector<std::string> places;
  for (const std::string& directory : directories) {
    places.push_back(absl::StrCat(directory, "/", LibraryName()));
  }
  places.push_back(LibraryName());
  std::vector<std::string> toolkits = {"/usr/local/cuda/lib64"};
  for (const std::string& folder :
       Expand(absl::StrCat("/usr/local/cuda-", CUBLAS_VER_MAJOR, "*/lib64"))) {
    toolkits.push_back(folder);
  }
  for (const std::string& folder : toolkits) {
    places.push_back(absl::StrCat(folder, "/", LibraryName()));
  }
  return places;
}

// Resolves every function of `api`; returns the name of the first that is missing, or null.
const char* Resolve(void* library, CublasLt& api) {
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr && missing == nullptr) missing = name;
  };
  find(api.create, "cublasLtCreate");
  find(api.destroy, "cublasLtDestroy");
  find(api.status_string, "cublasLtGetStatusString");
  find(api.matmul, "cublasLtMatmul");
  find(api.desc_init, "cublasLtMatmulDescInit_internal");
  find(api.desc_set, "cublasLtMatmulDescSetAttribute");
  find(api.layout_init, "cublasLtMatrixLayoutInit_internal");
  find(api.preference_init, "cublasLtMatmulPreferenceInit_internal");
  find(api.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(api.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(api.algo_init, "cublasLtMatmulAlgoInit");
  find(api.algo_check, "cublasLtMatmulAlgoCheck");
  find(api.algo_set, "cublasLtMatmulAlgoConfigSetAttribute");
  find(api.algo_get, "cublasLtMatmulAlgoConfigGetAttribute");
  return missing;
}

// Loads `place` into `api`; returns why it cannot be used, or "".
std::string LoadFrom(const std::string& place, CublasLt& api) {
  void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    return why == nullptr ? "cannot be loaded" : why;
  }
  decltype(&cublasLtGetVersion) version = nullptr;
  version = reinterpret_cast<decltype(version)>(dlsym(library, "cublasLtGetVersion"));
  const char* missing = version == nullptr ? "cublasLtGetVersion" : Resolve(library, api);
  if (missing == nullptr) {
    api.path = place;
    api.version = version();
    if (api.version / 10000 == CUBLAS_VER_MAJOR) return "";
  }
  std::string why = missing != nullptr ? absl::StrCat("has no ", missing)
                                       : absl::StrCat("is version ", api.version);
  dlclose(library);
  return why;
}

}  // namespace

StatusOr<CublasLt> LoadCublasLt(const std::vector<std::string>& directories) {
  std::vector<std::string> failures;
  for (const std::string& place : PlacesToTry(directories)) {
    CublasLt api;
    const std::string why = LoadFrom(place, api);
    if (why.empty()) return api;
    failures.push_back(absl::StrCat(place, " (", why, ")"));
  }
  return Error(absl::StatusCode::kNotFound,
               {.what = absl::StrCat("cuBLASLt ", CUBLAS_VER_MAJOR, " is not installed"),
                .where = absl::StrJoin(failures, ", "),
                .why = "products of many rows on the GPU run on it",
                .fix = absl::StrCat("install the CUDA ", CUBLAS_VER_MAJOR,
                                    " libraries, or name the folder that holds ", LibraryName(),
                                    " (a Python environment has it under nvidia/cu",
                                    CUBLAS_VER_MAJOR, "/lib)")});
}

}  // namespace tessera::kernels::cuda
