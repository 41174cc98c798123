#include "kernels/cuda/linear/gemm.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/linear/cublaslt_api.h"
#include "kernels/cuda/linear/gemm_kernels.h"
#include "kernels/cuda/linear/gemm_plan.h"
#include "kernels/cuda/linear/gemm_tuner.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cuda {
namespace {

constexpr size_t kLibraryBytes = size_t{32} << 20;  // what cuBLASLt asks for on Hopper
constexpr int kLanes = 3;                           // q, k and v
constexpr int32_t kTogetherRows = 512;              // more fill the device one by one
constexpr size_t kSmallBytes = size_t{2} << 20;
constexpr size_t kWeightsBytes = size_t{64} << 20;
constexpr size_t kActivationsBytes = size_t{128} << 20;
static_assert(kLanes * kLibraryBytes + kSmallBytes + kWeightsBytes + kActivationsBytes ==
              kGemmWorkspaceBytes);

constexpr int64_t kMaxIn = 65536;
constexpr int64_t kMaxOut = 524288;
constexpr size_t kScalesOffset = kSmallBytes / 2;  // in the small part; the bias lies before it
constexpr int32_t kGrain = 256;                    // of slices and chunks: whole tiles

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

bool IsAligned(const void* pointer, int64_t stride_bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride_bytes % 16 == 0;
}

Status FromCuda(cudaError_t error) {
  if (error == cudaSuccess) return absl::OkStatus();
  return Error(absl::StatusCode::kUnavailable,
               {.what = "a matrix product's kernel does not start",
                .why = cudaGetErrorString(error),
                .fix = "the device has failed: restart the server"});
}

// Bias and addend of a block of y that begins at channel `channel` and row `row`.
FinishArgs FinishOf(const GemmArgs& args, int32_t channel, int32_t channels, int32_t row,
                    int32_t rows) {
  FinishArgs finish;
  finish.rows = rows;
  finish.out = channels;
  finish.y_stride = args.y_stride;
  if (args.bias != nullptr) finish.bias = args.bias + channel;
  if (args.addend != nullptr) finish.addend = args.addend + row * args.addend_stride + channel;
  finish.addend_stride = args.addend_stride;
  return finish;
}

#define RETURN_IF_CUDA_ERROR(expr) TESSERA_RETURN_IF_ERROR(FromCuda(expr))

size_t OutputBytes(GemmEpilogue epilogue) { return epilogue == GemmEpilogue::kStore ? 2 : 4; }

ProductOutput DirectOutput(GemmEpilogue epilogue) {
  return epilogue == GemmEpilogue::kStore ? ProductOutput::kBf16 : ProductOutput::kFloat;
}

}  // namespace

std::string MissingGemm(DType dtype, int64_t out, int64_t in) {
  if (dtype != DType::kBF16 && !HasPlanes(dtype)) {
    return absl::StrCat("weight type ", static_cast<int>(dtype), " (bf16 or one with planes)");
  }
  if (out < 1 || out > kMaxOut) return absl::StrCat("out ", out, " (1 to ", kMaxOut, ")");
  if (in < 8 || in > kMaxIn) return absl::StrCat("in ", in, " (8 to ", kMaxIn, ")");
  const int64_t multiple = dtype >= DType::kI4G128 && HasPlanes(dtype) ? ScaleGroup(dtype) : 8;
  if (in % multiple != 0) return absl::StrCat("in ", in, " (a multiple of ", multiple, ")");
  return "";
}

// Output channels [begin, begin + count) of a weight, as operands of one product.
struct GemmEngine::Slice {
  ProductOperands operands = ProductOperands::kBf16;
  const void* weight = nullptr;
  const float* scales = nullptr;
  int32_t begin = 0;
  int32_t count = 0;
  int lane = 0;
};

// Rows [begin, begin + count) of a product and where their operand lies.
struct GemmEngine::Chunk {
  int32_t begin = 0;
  int32_t count = 0;
  bool direct = false;  // the library writes y itself
  const void* x = nullptr;
  const float* x_scales = nullptr;
  int32_t padded_count = 0;      // rows of the operand
  std::byte* scratch = nullptr;  // what the operand left of the activations' part
};

StatusOr<std::unique_ptr<GemmEngine>> GemmEngine::Create(const GemmOptions& options) {
  int major = 0;
  RETURN_IF_CUDA_ERROR(
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, options.device));
  if (major < 8) {
    return Error(
        absl::StatusCode::kFailedPrecondition,
        {.what = absl::StrCat("device ", options.device, " has compute capability ", major, ".x"),
         .why = "matrix products in bf16 need 8.0",
         .fix = "use an Ampere GPU or a later one"});
  }
  if (options.workspace_bytes < kGemmWorkspaceBytes ||
      reinterpret_cast<uintptr_t>(options.workspace) % 256 != 0) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("a workspace of ", options.workspace_bytes, " bytes"),
                  .why = absl::StrCat("matrix products need ", kGemmWorkspaceBytes,
                                      " at a multiple of 256")});
  }
  TESSERA_ASSIGN_OR_RETURN(CublasLt library, LoadCublasLt(options.library_directories));
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<GemmPlanner> planner,
      GemmPlanner::Create(library, options.numerics, options.workspace, kLibraryBytes));
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<SideStreams> sides, SideStreams::Create(kLanes - 1));
  return std::unique_ptr<GemmEngine>(
      new GemmEngine(options, major, std::move(planner), std::move(sides)));
}

GemmEngine::GemmEngine(const GemmOptions& options, int device_major,
                       std::unique_ptr<GemmPlanner> planner, std::unique_ptr<SideStreams> sides)
    : device_major_(device_major),
      numerics_(options.numerics),
      planner_(std::move(planner)),
      sides_(std::move(sides)),
      small_(options.workspace + kLanes * kLibraryBytes),
      weights_(small_ + kSmallBytes),
      activations_(weights_ + kWeightsBytes) {}

GemmEngine::~GemmEngine() = default;

std::string GemmEngine::LibraryPath() const { return planner_->library().path; }
size_t GemmEngine::LibraryVersion() const { return planner_->library().version; }

GemmEngine::Route GemmEngine::RouteOf(DType dtype, int32_t out, int32_t in) const {
  if (dtype == DType::kBF16) return Route::kBf16;
  // The two scaled products exist on Hopper alone.
  const bool native = device_major_ == 9 && out % 8 == 0 && in % 16 == 0;
  if (native && dtype == DType::kF8Channel) return Route::kF8Outer;
  if (native && dtype == DType::kF8Block128) return Route::kF8Block;
  return Route::kDequantize;
}

bool GemmEngine::ReadsCodes(DType dtype, int32_t out, int32_t in) const {
  return RouteOf(dtype, out, in) == Route::kF8Outer;
}

int32_t GemmEngine::SliceChannels(int32_t out, int32_t in) {
  const int64_t most = static_cast<int64_t>(kWeightsBytes) / 2 / in / kGrain * kGrain;
  const int64_t slices = (out + most - 1) / most;
  return static_cast<int32_t>(RoundUp((out + slices - 1) / slices, kGrain));
}

std::vector<ProductKind> GemmEngine::KindsOf(const GemmShape& shape) const {
  const Route route = RouteOf(shape.dtype, shape.out, shape.in);
  std::vector<ProductKind> kinds;
  const auto add = [&](int32_t out) {
    ProductKind kind;
    kind.operands = route == Route::kF8Outer   ? ProductOperands::kF8Outer
                    : route == Route::kF8Block ? ProductOperands::kF8Block
                                               : ProductOperands::kBf16;
    kind.output = DirectOutput(shape.epilogue);
    kind.out = out;
    kind.in = shape.in;
    kinds.push_back(kind);
    // The way through scratch.
    kind.output = ProductOutput::kFloat;
    if (numerics_ == GemmNumerics::kRowInvariant && kind != kinds.back()) kinds.push_back(kind);
  };
  const int32_t whole =
      route == Route::kDequantize ? SliceChannels(shape.out, shape.in) : shape.out;
  if (shape.out >= whole) add(whole);
  if (shape.out % whole != 0) add(shape.out % whole);
  return kinds;
}

Status GemmEngine::Prepare(const GemmShape& shape, int32_t max_rows, GemmSearch search) {
  const auto for_each_bucket = [&](auto call) {
    for (int32_t rows = 1; rows <= max_rows;) {
      const int32_t bucket = GemmPlanner::RowBucket(rows);
      call(bucket);
      rows = bucket + 1;
    }
  };
  for (const ProductKind& kind : KindsOf(shape)) {
    if (numerics_ == GemmNumerics::kFast && search == GemmSearch::kHeuristic) {
      for_each_bucket([&](int32_t bucket) { (void)planner_->Find(kind, bucket); });
      continue;
    }
    bool kept = true;
    for_each_bucket([&](int32_t bucket) { kept &= planner_->Keeps(kind, bucket); });
    if (kept) continue;
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<GemmTuner> tuner,
                             GemmTuner::Create(*planner_, kind, max_rows));
    TESSERA_RETURN_IF_ERROR(tuner->Tune(search));
  }
  return absl::OkStatus();
}

std::vector<GemmAlgorithm> GemmEngine::Export() const { return planner_->Export(); }

int GemmEngine::Import(std::span<const GemmAlgorithm> algorithms) {
  int refused = 0;
  for (const GemmAlgorithm& algorithm : algorithms) refused += planner_->Import(algorithm) ? 0 : 1;
  return refused;
}

Status GemmEngine::Run(const GemmArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return absl::OkStatus();
  if (args.bias != nullptr && args.epilogue == GemmEpilogue::kStore) {
    RETURN_IF_CUDA_ERROR(
        LaunchFloatToBf16(args.bias, reinterpret_cast<__nv_bfloat16*>(small_), args.out, stream));
  }
  const Route route = RouteOf(args.dtype, args.out, args.in);
  return route == Route::kDequantize ? RunDequantized(args, stream)
                                     : RunNative(args, route, 0, stream);
}

bool GemmEngine::NeedsNoScratch(const GemmArgs& args) const {
  const Route route = RouteOf(args.dtype, args.out, args.in);
  const bool codes = route == Route::kF8Outer && args.x_codes != nullptr;
  if (route != Route::kBf16 && !codes) return false;
  return args.bias == nullptr && args.addend == nullptr && args.y_rows == nullptr &&
         IsAligned(args.y, args.y_stride * static_cast<int64_t>(OutputBytes(args.epilogue)));
}

std::optional<GemmArgs> GemmEngine::AsOne(std::span<const GemmArgs> products) const {
  if (products.size() < 2 || numerics_ != GemmNumerics::kFast) return std::nullopt;
  GemmArgs one = products[0];
  if (one.dtype != DType::kBF16 || one.epilogue == GemmEpilogue::kResidual) return std::nullopt;
  const size_t y_bytes = OutputBytes(one.epilogue);
  one.out = 0;
  for (const GemmArgs& next : products) {
    const std::byte* weight = one.weight + int64_t{2} * one.out * one.in;
    const std::byte* y = static_cast<std::byte*>(one.y) + one.out * y_bytes;
    const bool follows = next.dtype == one.dtype && next.in == one.in && next.x == one.x &&
                         next.rows == one.rows && next.epilogue == one.epilogue &&
                         next.weight == weight && next.y == y && next.y_stride == one.y_stride;
    const bool plain = next.bias == nullptr && next.addend == nullptr && next.y_rows == nullptr;
    if (!follows || !plain) return std::nullopt;
    one.out += next.out;
  }
  // Outputs of a single row may follow one another as rows of their own.
  if (one.y_stride < one.out) return std::nullopt;
  return one;
}

Status GemmEngine::RunTogether(std::span<const GemmArgs> products, cudaStream_t stream) {
  if (const std::optional<GemmArgs> one = AsOne(products)) return Run(*one, stream);
  const auto alone = [&](const GemmArgs& args) {
    return args.rows == 0 || args.rows > kTogetherRows || !NeedsNoScratch(args);
  };
  const bool together = products.size() > 1 && products.size() <= size_t{kLanes} &&
                        std::none_of(products.begin(), products.end(), alone);
  const int sides = together ? static_cast<int>(products.size()) - 1 : 0;
  if (together) RETURN_IF_CUDA_ERROR(sides_->Fork(stream, sides));
  Status status;
  for (size_t i = 0; i < products.size(); ++i) {
    const GemmArgs& args = products[i];
    const int lane = together ? static_cast<int>(i) : 0;
    status.Update(lane == 0 ? Run(args, stream)
                            : RunNative(args, RouteOf(args.dtype, args.out, args.in), lane,
                                        sides_->stream(lane - 1)));
  }
  // Also after an error: a capture must not end with streams that are forked.
  if (together) RETURN_IF_CUDA_ERROR(sides_->Join(stream, sides));
  return status;
}

Status GemmEngine::RunNative(const GemmArgs& args, Route route, int lane, cudaStream_t stream) {
  Slice slice;
  slice.lane = lane;
  slice.weight = args.weight;
  slice.count = args.out;
  if (route == Route::kBf16) return RunSlice(args, slice, stream);
  const WeightPlanes planes = PlanesOf(args.dtype, args.out, args.in);
  slice.scales = reinterpret_cast<const float*>(args.weight + planes.scales_offset);
  slice.operands = route == Route::kF8Outer ? ProductOperands::kF8Outer : ProductOperands::kF8Block;
  const int32_t columns = (args.in + 127) / 128;
  if (route == Route::kF8Block && columns % 4 != 0) {
    auto* padded = reinterpret_cast<float*>(small_ + kScalesOffset);
    RETURN_IF_CUDA_ERROR(LaunchPadColumns(slice.scales, padded, (args.out + 127) / 128, columns,
                                          static_cast<int32_t>(RoundUp(columns, 4)), stream));
    slice.scales = padded;
  }
  return RunSlice(args, slice, stream);
}

Status GemmEngine::RunDequantized(const GemmArgs& args, cudaStream_t stream) {
  const int32_t step = SliceChannels(args.out, args.in);
  for (int32_t begin = 0; begin < args.out; begin += step) {
    Slice slice;
    slice.weight = weights_;
    slice.begin = begin;
    slice.count = std::min(step, args.out - begin);
    DequantizeArgs dequantize;
    dequantize.dtype = args.dtype;
    dequantize.layout = args.int4_layout;
    dequantize.weight = args.weight;
    dequantize.out = args.out;
    dequantize.in = args.in;
    dequantize.out_begin = begin;
    dequantize.out_count = slice.count;
    dequantize.w = reinterpret_cast<__nv_bfloat16*>(weights_);
    RETURN_IF_CUDA_ERROR(LaunchDequantize(dequantize, stream));
    TESSERA_RETURN_IF_ERROR(RunSlice(args, slice, stream));
  }
  return absl::OkStatus();
}

Status GemmEngine::RunSlice(const GemmArgs& args, const Slice& slice, cudaStream_t stream) {
  const int64_t y_bytes = static_cast<int64_t>(OutputBytes(args.epilogue));
  const bool adds_in_product = args.addend != nullptr && args.epilogue == GemmEpilogue::kStore;
  Chunk chunk;
  chunk.direct = args.y_rows == nullptr && IsAligned(args.y, args.y_stride * y_bytes) &&
                 (!adds_in_product || IsAligned(args.addend, args.addend_stride * 2));
  const bool quantizes = slice.operands != ProductOperands::kBf16 &&
                         (slice.operands == ProductOperands::kF8Block || args.x_codes == nullptr);
  const int64_t row_bytes =
      (quantizes ? args.in + (args.in + 127) / 128 * 4 : 0) +
      (chunk.direct ? 0 : RoundUp(slice.count, 8) * static_cast<int64_t>(sizeof(float)));
  int64_t step = args.rows;
  if (row_bytes > 0) {
    // Room for alignment, and for the few rows of the last chunk that pass through scratch.
    const int64_t reserve = 4096 + 8 * RoundUp(slice.count, 8) * 4;
    const int64_t most = (static_cast<int64_t>(kActivationsBytes) - reserve) / row_bytes;
    const int64_t chunks = (args.rows + most - 1) / most;
    const int64_t grain = most >= kGrain ? kGrain : 4;
    step = std::min(RoundUp((args.rows + chunks - 1) / chunks, grain), most / grain * grain);
  }
  for (int64_t begin = 0; begin < args.rows; begin += step) {
    chunk.begin = static_cast<int32_t>(begin);
    chunk.count = static_cast<int32_t>(std::min<int64_t>(step, args.rows - begin));
    const int32_t tail = slice.operands == ProductOperands::kF8Block ? chunk.count % 4 : 0;
    Chunk rest = chunk;
    if (chunk.direct && tail != 0) {
      chunk.count -= tail;
      rest.begin += chunk.count;
      rest.count = tail;
      rest.direct = false;
      TESSERA_RETURN_IF_ERROR(RunChunk(args, slice, rest, stream));
    }
    if (chunk.count > 0) TESSERA_RETURN_IF_ERROR(RunChunk(args, slice, chunk, stream));
  }
  return absl::OkStatus();
}

Status GemmEngine::RunChunk(const GemmArgs& args, const Slice& slice, Chunk chunk,
                            cudaStream_t stream) {
  const int64_t offset = int64_t{chunk.begin} * args.in;
  chunk.padded_count = chunk.count;
  chunk.scratch = activations_;
  if (slice.operands == ProductOperands::kBf16) {
    chunk.x = args.x + offset;
  } else if (slice.operands == ProductOperands::kF8Outer && args.x_codes != nullptr) {
    chunk.x = args.x_codes + offset;
    chunk.x_scales = args.x_scales + chunk.begin;
  } else {
    const bool outer = slice.operands == ProductOperands::kF8Outer;
    if (!outer) chunk.padded_count = static_cast<int32_t>(RoundUp(chunk.count, 4));
    QuantizeE4m3Args quantize;
    quantize.x = args.x + offset;
    quantize.rows = chunk.count;
    quantize.padded_rows = chunk.padded_count;
    quantize.in = args.in;
    quantize.codes = reinterpret_cast<uint8_t*>(activations_);
    const int64_t codes_bytes = RoundUp(int64_t{chunk.padded_count} * args.in, 256);
    const int64_t groups = outer ? 1 : (args.in + 127) / 128;
    quantize.scales = reinterpret_cast<float*>(activations_ + codes_bytes);
    chunk.scratch += codes_bytes + RoundUp(groups * chunk.padded_count * 4, 256);
    chunk.x = quantize.codes;
    chunk.x_scales = quantize.scales;
    RETURN_IF_CUDA_ERROR(outer ? LaunchQuantizeE4m3Rows(quantize, stream)
                               : LaunchQuantizeE4m3Groups(quantize, stream));
  }
  return chunk.direct ? StoreDirect(args, slice, chunk, stream)
                      : StoreThroughScratch(args, slice, chunk, stream);
}

Status GemmEngine::Launch(const ProductKind& kind, const ProductBuffers& buffers,
                          const Chunk& chunk, cudaStream_t stream) {
  const cublasLtMatmulAlgo_t* algorithm = planner_->Find(kind, chunk.padded_count);
  const auto describe = [&] {
    return absl::StrCat("a product of ", chunk.padded_count, " rows with ", kind.out, " x ",
                        kind.in);
  };
  if (algorithm == nullptr) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 {.what = absl::StrCat("no algorithm for ", describe()),
                  .where = LibraryPath(),
                  .why = numerics_ == GemmNumerics::kRowInvariant
                             ? "row-invariant products run after Prepare, up to its rows"
                             : "this cuBLASLt does not have it on this device"});
  }
  cublasStatus_t status = planner_->Launch(kind, chunk.padded_count, buffers, *algorithm, stream);
  if (status != CUBLAS_STATUS_SUCCESS && numerics_ == GemmNumerics::kFast) {
    status = planner_->Replace(kind, chunk.padded_count, buffers, stream);
  }
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return Error(absl::StatusCode::kInternal, {.what = absl::StrCat("cuBLASLt refuses ", describe()),
                                             .where = LibraryPath(),
                                             .why = planner_->library().status_string(status)});
}

Status GemmEngine::StoreDirect(const GemmArgs& args, const Slice& slice, const Chunk& chunk,
                               cudaStream_t stream) {
  const bool narrow = args.epilogue == GemmEpilogue::kStore;
  auto* y = static_cast<std::byte*>(args.y) + (chunk.begin * args.y_stride + slice.begin) *
                                                  static_cast<int64_t>(OutputBytes(args.epilogue));
  ProductKind kind;
  kind.operands = slice.operands;
  kind.output = DirectOutput(args.epilogue);
  kind.out = slice.count;
  kind.in = args.in;
  ProductBuffers buffers;
  buffers.weight = slice.weight;
  buffers.weight_scales = slice.scales;
  buffers.x = chunk.x;
  buffers.x_scales = chunk.x_scales;
  buffers.d = y;
  buffers.lane = slice.lane;
  buffers.d_stride = args.y_stride;
  if (args.epilogue == GemmEpilogue::kResidual) {
    kind.addition = ProductAddition::kC;
    buffers.c = y;
    buffers.c_stride = args.y_stride;
  }
  if (narrow && args.addend != nullptr) {
    kind.addition = ProductAddition::kC;
    buffers.c = args.addend + chunk.begin * args.addend_stride + slice.begin;
    buffers.c_stride = args.addend_stride;
  }
  if (narrow && args.bias != nullptr) {
    kind.bias = ProductBias::kChannel;
    buffers.bias = reinterpret_cast<const __nv_bfloat16*>(small_) + slice.begin;
  }
  TESSERA_RETURN_IF_ERROR(Launch(kind, buffers, chunk, stream));
  if (narrow || (args.bias == nullptr && args.addend == nullptr)) return absl::OkStatus();
  FinishArgs finish = FinishOf(args, slice.begin, slice.count, chunk.begin, chunk.count);
  return FromCuda(LaunchFinishAdd(finish, reinterpret_cast<float*>(y), stream));
}

Status GemmEngine::StoreThroughScratch(const GemmArgs& args, const Slice& slice, const Chunk& chunk,
                                       cudaStream_t stream) {
  ProductKind kind;
  kind.operands = slice.operands;
  kind.output = ProductOutput::kFloat;
  kind.out = slice.count;
  kind.in = args.in;
  ProductBuffers buffers;
  buffers.weight = slice.weight;
  buffers.weight_scales = slice.scales;
  buffers.x = chunk.x;
  buffers.x_scales = chunk.x_scales;
  buffers.d = chunk.scratch;
  buffers.d_stride = RoundUp(slice.count, 8);
  TESSERA_RETURN_IF_ERROR(Launch(kind, buffers, chunk, stream));
  FinishArgs finish = FinishOf(args, slice.begin, slice.count, chunk.begin, chunk.count);
  finish.product = reinterpret_cast<const float*>(chunk.scratch);
  finish.product_stride = buffers.d_stride;
  // With y_rows the row is the kernel's to find; without, the chunk's first.
  const int64_t first = (args.y_rows == nullptr ? chunk.begin * args.y_stride : 0) + slice.begin;
  if (args.y_rows != nullptr) finish.y_rows = args.y_rows + chunk.begin;
  auto* narrow = static_cast<__nv_bfloat16*>(args.y) + first;
  auto* wide = static_cast<float*>(args.y) + first;
  return FromCuda(args.epilogue == GemmEpilogue::kStore ? LaunchFinishStore(finish, narrow, stream)
                  : args.epilogue == GemmEpilogue::kStoreFloat
                      ? LaunchFinishStore(finish, wide, stream)
                      : LaunchFinishAdd(finish, wide, stream));
}

}  // namespace tessera::kernels::cuda
