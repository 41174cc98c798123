#include "kernels/cuda/linear/gemm_plan.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kAnswers = 8;  // of the library's heuristic
constexpr int32_t kManyRows = 8192;
constexpr uint32_t kAlignment = 16;

constexpr uint32_t kTiles[] = {CUBLASLT_MATMUL_TILE_32x128, CUBLASLT_MATMUL_TILE_64x64,
                               CUBLASLT_MATMUL_TILE_64x128, CUBLASLT_MATMUL_TILE_128x64,
                               CUBLASLT_MATMUL_TILE_64x256, CUBLASLT_MATMUL_TILE_128x128};
constexpr uint16_t kClusters[] = {CUBLASLT_CLUSTER_SHAPE_1x1x1, CUBLASLT_CLUSTER_SHAPE_2x1x1,
                                  CUBLASLT_CLUSTER_SHAPE_1x2x1, CUBLASLT_CLUSTER_SHAPE_4x1x1};
constexpr int32_t kSplits[] = {1, 2, 4};

// An attribute of an algorithm, and its bytes in the library.
struct Attribute {
  cublasLtMatmulAlgoConfigAttributes_t id;
  size_t bytes;
};
constexpr Attribute kAttributes[] = {
    {CUBLASLT_ALGO_CONFIG_ID, 4},
    {CUBLASLT_ALGO_CONFIG_TILE_ID, 4},
    {CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4},
    {CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 4},
    {CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, 4},
    {CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4},
    {CUBLASLT_ALGO_CONFIG_STAGES_ID, 4},
    {CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, 2},
    {CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2},
};
static_assert(std::size(kAttributes) == kAlgorithmAttributes);

bool IsF8(ProductOperands operands) { return operands != ProductOperands::kBf16; }

cudaDataType_t TypeOf(ProductOperands operands) {
  return IsF8(operands) ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
}

cudaDataType_t TypeOf(ProductOutput output) {
  return output == ProductOutput::kBf16 ? CUDA_R_16BF : CUDA_R_32F;
}

// Any address with the alignment that callers promise: the heuristic looks at nothing else.
const void* SomeAddress() { return reinterpret_cast<const void*>(uintptr_t{4096}); }

int64_t PaddedOut(int32_t out) { return (int64_t{out} + 7) / 8 * 8; }

// What the heuristic is asked with, before there are buffers.
ProductBuffers Placeholders(const ProductKind& kind) {
  ProductBuffers buffers;
  buffers.weight_scales = static_cast<const float*>(SomeAddress());
  buffers.x_scales = static_cast<const float*>(SomeAddress());
  buffers.bias = SomeAddress();
  buffers.c_stride = PaddedOut(kind.out);
  buffers.d_stride = PaddedOut(kind.out);
  return buffers;
}

}  // namespace

struct GemmPlanner::Descriptors {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t weight, x, c, d;
};

StatusOr<std::unique_ptr<GemmPlanner>> GemmPlanner::Create(const CublasLt& library,
                                                           GemmNumerics numerics,
                                                           std::byte* workspace,
                                                           size_t workspace_bytes) {
  cublasLtHandle_t handle = nullptr;
  const cublasStatus_t status = library.create(&handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return Error(absl::StatusCode::kInternal, {.what = "cuBLASLt does not start",
                                               .where = library.path,
                                               .why = library.status_string(status),
                                               .fix = "check the driver's version (nvidia-smi)"});
  }
  return std::unique_ptr<GemmPlanner>(
      new GemmPlanner(library, handle, numerics, workspace, workspace_bytes));
}

GemmPlanner::GemmPlanner(const CublasLt& library, cublasLtHandle_t handle, GemmNumerics numerics,
                         std::byte* workspace, size_t workspace_bytes)
    : library_(library),
      handle_(handle),
      numerics_(numerics),
      workspace_(workspace),
      workspace_bytes_(workspace_bytes) {}

GemmPlanner::~GemmPlanner() { library_.destroy(handle_); }

int32_t GemmPlanner::RowBucket(int32_t rows) {
  if (rows <= 16) return 16;
  if (rows <= 32) return 32;
  const auto below = static_cast<int32_t>(std::bit_floor(static_cast<uint32_t>(rows - 1)));
  const int32_t step = std::max(rows <= 128 ? 32 : 64, below / 4);
  return (rows + step - 1) / step * step;
}

GemmPlanner::Descriptors GemmPlanner::Describe(const ProductKind& kind, int32_t rows,
                                               const ProductBuffers& buffers) const {
  Descriptors result;
  library_.desc_init(&result.operation, sizeof(result.operation), CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    library_.desc_set(&result.operation, attribute, &value, sizeof(value));
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t{CUBLAS_OP_T});
  if (IsF8(kind.operands)) {
    const bool outer = kind.operands == ProductOperands::kF8Outer;
    // Block scales are applied between partial sums, which the short accumulator has no room for.
    set(CUBLASLT_MATMUL_DESC_FAST_ACCUM,
        static_cast<int8_t>(outer && numerics_ == GemmNumerics::kFast));
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
        static_cast<int32_t>(outer ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
                                   : CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F));
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE,
        static_cast<int32_t>(outer ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
                                   : CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F));
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, buffers.weight_scales);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, buffers.x_scales);
  }
  if (kind.bias == ProductBias::kChannel) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t{CUBLASLT_EPILOGUE_BIAS});
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t{CUDA_R_16BF});
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, buffers.bias);
  }
  const cudaDataType_t operand = TypeOf(kind.operands);
  const auto layout = [&](cublasLtMatrixLayoutOpaque_t& matrix, cudaDataType_t type,
                          int32_t matrix_rows, int32_t columns, int64_t stride) {
    library_.layout_init(&matrix, sizeof(matrix), type, matrix_rows, columns, stride);
  };
  layout(result.weight, operand, kind.in, kind.out, kind.in);
  layout(result.x, operand, kind.in, rows, kind.in);
  layout(result.d, TypeOf(kind.output), kind.out, rows, buffers.d_stride);
  const bool has_c = kind.addition == ProductAddition::kC;
  layout(result.c, TypeOf(kind.output), kind.out, rows,
         has_c ? buffers.c_stride : buffers.d_stride);
  return result;
}

std::vector<cublasLtMatmulAlgo_t> GemmPlanner::Heuristic(Descriptors& descriptors, int count,
                                                         Sums sums) const {
  cublasLtMatmulPreferenceOpaque_t preference;
  library_.preference_init(&preference, sizeof(preference));
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    library_.preference_set(&preference, attribute, &value, sizeof(value));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{workspace_bytes_});
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(attribute, kAlignment);
  }
  if (sums == Sums::kWhole) {
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
  }
  std::vector<cublasLtMatmulHeuristicResult_t> answers(count);
  int returned = 0;
  const cublasStatus_t status = library_.heuristic(
      handle_, &descriptors.operation, &descriptors.weight, &descriptors.x, &descriptors.c,
      &descriptors.d, &preference, count, answers.data(), &returned);
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < returned; ++i) {
    if (answers[i].state != CUBLAS_STATUS_SUCCESS) continue;
    if (sums == Sums::kWhole && SplitsSum(answers[i].algo)) continue;
    algorithms.push_back(answers[i].algo);
  }
  return algorithms;
}

bool GemmPlanner::Runs(Descriptors& descriptors, const cublasLtMatmulAlgo_t& algorithm) const {
  cublasLtMatmulHeuristicResult_t result{};
  return library_.algo_check(handle_, &descriptors.operation, &descriptors.weight, &descriptors.x,
                             &descriptors.c, &descriptors.d, &algorithm,
                             &result) == CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= workspace_bytes_;
}

AlgorithmConfig GemmPlanner::ConfigOf(const cublasLtMatmulAlgo_t& algorithm) const {
  AlgorithmConfig config{};
  for (const Attribute& attribute : kAttributes) {
    size_t written = 0;
    library_.algo_get(&algorithm, attribute.id, &config[attribute.id], attribute.bytes, &written);
  }
  return config;
}

std::optional<cublasLtMatmulAlgo_t> GemmPlanner::Restore(const ProductKind& kind, int32_t rows,
                                                         const AlgorithmConfig& config) const {
  cublasLtMatmulAlgo_t algorithm{};
  const cudaDataType_t operand = TypeOf(kind.operands);
  const cudaDataType_t output = TypeOf(kind.output);
  if (library_.algo_init(handle_, CUBLAS_COMPUTE_32F, CUDA_R_32F, operand, operand, output, output,
                         static_cast<int>(config[CUBLASLT_ALGO_CONFIG_ID]),
                         &algorithm) != CUBLAS_STATUS_SUCCESS) {
    return std::nullopt;
  }
  for (const Attribute& attribute : kAttributes) {
    if (attribute.id == CUBLASLT_ALGO_CONFIG_ID) continue;
    if (library_.algo_set(&algorithm, attribute.id, &config[attribute.id], attribute.bytes) !=
        CUBLAS_STATUS_SUCCESS) {
      return std::nullopt;
    }
  }
  Descriptors descriptors = Describe(kind, rows, Placeholders(kind));
  if (!Runs(descriptors, algorithm)) return std::nullopt;
  return algorithm;
}

bool GemmPlanner::SplitsSum(const cublasLtMatmulAlgo_t& algorithm) const {
  int32_t splits = 0;
  uint32_t reduction = 0;
  size_t written = 0;
  library_.algo_get(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof(splits), &written);
  library_.algo_get(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction,
                    sizeof(reduction), &written);
  return splits > 1 || reduction != CUBLASLT_REDUCTION_SCHEME_NONE;
}

std::vector<cublasLtMatmulAlgo_t> GemmPlanner::Candidates(const ProductKind& kind, int32_t rows) {
  Descriptors descriptors = Describe(kind, rows, Placeholders(kind));
  std::vector<cublasLtMatmulAlgo_t> algorithms = Heuristic(descriptors, kAnswers, sums());
  if (algorithms.empty() && numerics_ == GemmNumerics::kRowInvariant) {
    // For few rows and a long sum every answer may split it; for many rows none does.
    Descriptors many = Describe(kind, kManyRows, Placeholders(kind));
    for (const cublasLtMatmulAlgo_t& answer : Heuristic(many, kAnswers, Sums::kWhole)) {
      if (Runs(descriptors, answer)) algorithms.push_back(answer);
    }
  }
  const bool timed = rows <= kTimedRows;
  if (timed && !algorithms.empty()) {
    const cublasLtMatmulAlgo_t first = algorithms.front();
    AddVariants(descriptors, first, algorithms);
  }
  if (timed && numerics_ == GemmNumerics::kRowInvariant) {
    // What the library would split may be the better kernel for few rows without a split, too.
    for (const cublasLtMatmulAlgo_t& answer : Heuristic(descriptors, 1, Sums::kMaySplit)) {
      AddVariants(descriptors, answer, algorithms);
    }
  }
  // What an import would restore is not asked of a fast algorithm that nobody times.
  if (!timed && numerics_ == GemmNumerics::kFast) return algorithms;
  std::set<AlgorithmConfig> configs;
  std::vector<cublasLtMatmulAlgo_t> distinct;
  for (const cublasLtMatmulAlgo_t& algorithm : algorithms) {
    const AlgorithmConfig config = ConfigOf(algorithm);
    if (!configs.insert(config).second) continue;
    distinct.push_back(Restore(kind, rows, config).value_or(algorithm));
  }
  return distinct;
}

void GemmPlanner::AddVariants(Descriptors& descriptors, const cublasLtMatmulAlgo_t& first,
                              std::vector<cublasLtMatmulAlgo_t>& algorithms) const {
  for (const uint32_t tile : kTiles) {
    for (const uint16_t cluster : kClusters) {
      for (const int32_t splits : kSplits) {
        if (splits > 1 && numerics_ == GemmNumerics::kRowInvariant) continue;
        cublasLtMatmulAlgo_t variant = first;
        const auto set = [&](cublasLtMatmulAlgoConfigAttributes_t attribute, auto value) {
          library_.algo_set(&variant, attribute, &value, sizeof(value));
        };
        set(CUBLASLT_ALGO_CONFIG_TILE_ID, tile);
        set(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, cluster);
        set(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, uint32_t{0});
        set(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, splits);
        set(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
            static_cast<uint32_t>(splits > 1 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                                             : CUBLASLT_REDUCTION_SCHEME_NONE));
        if (Runs(descriptors, variant)) algorithms.push_back(variant);
      }
    }
  }
}

std::optional<cublasLtMatmulAlgo_t> GemmPlanner::Choose(const ProductKind& kind, int32_t bucket) {
  Descriptors descriptors = Describe(kind, bucket, Placeholders(kind));
  ProductKind plain = kind;
  plain.addition = ProductAddition::kNone;
  plain.bias = ProductBias::kNone;
  if (plain != kind) {
    const cublasLtMatmulAlgo_t* algorithm = Find(plain, bucket);
    if (algorithm != nullptr && Runs(descriptors, *algorithm)) return *algorithm;
  }
  if (numerics_ == GemmNumerics::kRowInvariant) return std::nullopt;
  const std::vector<cublasLtMatmulAlgo_t> answers = Heuristic(descriptors, 1, sums());
  if (answers.empty()) return std::nullopt;
  return answers.front();
}

const cublasLtMatmulAlgo_t* GemmPlanner::Find(const ProductKind& kind, int32_t rows) {
  const Key key = {kind, RowBucket(rows)};
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    std::optional<cublasLtMatmulAlgo_t> algorithm = Choose(kind, key.bucket);
    // A row-invariant shape may still be prepared, so its absence is not remembered.
    if (!algorithm.has_value() && numerics_ == GemmNumerics::kRowInvariant) return nullptr;
    found = plans_.emplace(key, Plan{algorithm}).first;
  }
  const std::optional<cublasLtMatmulAlgo_t>& algorithm = found->second.algorithm;
  return algorithm.has_value() ? &*algorithm : nullptr;
}

void GemmPlanner::Keep(const ProductKind& kind, int32_t bucket,
                       const cublasLtMatmulAlgo_t& algorithm) {
  plans_[Key{kind, bucket}] = Plan{algorithm, true};
}

bool GemmPlanner::Keeps(const ProductKind& kind, int32_t bucket) const {
  const auto found = plans_.find(Key{kind, bucket});
  return found != plans_.end() && found->second.kept;
}

std::vector<GemmAlgorithm> GemmPlanner::Export() const {
  std::vector<GemmAlgorithm> algorithms;
  for (const auto& [key, plan] : plans_) {
    if (!plan.algorithm.has_value() || (!plan.kept && key.bucket <= kTimedRows)) continue;
    algorithms.push_back({key.kind, key.bucket, ConfigOf(*plan.algorithm)});
  }
  return algorithms;
}

bool GemmPlanner::Import(const GemmAlgorithm& algorithm) {
  if (RowBucket(algorithm.bucket) != algorithm.bucket) return false;
  const std::optional<cublasLtMatmulAlgo_t> restored =
      Restore(algorithm.kind, algorithm.bucket, algorithm.config);
  if (!restored.has_value() || (sums() == Sums::kWhole && SplitsSum(*restored))) return false;
  Keep(algorithm.kind, algorithm.bucket, *restored);
  return true;
}

cublasStatus_t GemmPlanner::Launch(const ProductKind& kind, int32_t rows,
                                   const ProductBuffers& buffers,
                                   const cublasLtMatmulAlgo_t& algorithm, cudaStream_t stream) {
  Descriptors descriptors = Describe(kind, rows, buffers);
  const bool has_c = kind.addition == ProductAddition::kC;
  const float one = 1.0f;
  const float beta = has_c ? 1.0f : 0.0f;
  return library_.matmul(handle_, &descriptors.operation, &one, buffers.weight, &descriptors.weight,
                         buffers.x, &descriptors.x, &beta, has_c ? buffers.c : buffers.d,
                         &descriptors.c, buffers.d, &descriptors.d, &algorithm,
                         workspace_ + buffers.lane * workspace_bytes_, workspace_bytes_, stream);
}

cublasStatus_t GemmPlanner::Replace(const ProductKind& kind, int32_t rows,
                                    const ProductBuffers& buffers, cudaStream_t stream) {
  Descriptors descriptors = Describe(kind, rows, buffers);
  cublasStatus_t status = CUBLAS_STATUS_NOT_SUPPORTED;
  for (const cublasLtMatmulAlgo_t& answer : Heuristic(descriptors, kAnswers, sums())) {
    status = Launch(kind, rows, buffers, answer, stream);
    if (status != CUBLAS_STATUS_SUCCESS) continue;
    Keep(kind, RowBucket(rows), answer);
    break;
  }
  return status;
}

}  // namespace tessera::kernels::cuda
