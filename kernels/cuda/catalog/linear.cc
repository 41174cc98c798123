// Which kernel makes a product: few rows stream the weight once (skinny.h), many go to the matrix
// library (gemm.h), types that neither knows to the one that knows all (generic_linear.h).
#include "kernels/cuda/catalog/linear.h"

#include <algorithm>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/linear/gemm.h"
#include "kernels/cuda/linear/skinny.h"
#include "kernels/cuda/ops/generic_linear.h"
#include "kernels/cuda/ops/rows.h"
#include "kernels/cuda/registry.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cuda {
namespace {

using Bf16 = __nv_bfloat16;

bool IsGated(Epilogue epilogue) {
  return epilogue == Epilogue::kGatedSilu || epilogue == Epilogue::kGatedGeluTanh;
}

// Each block that streams weights normalises its rows anew, one after another; rows of their own
// cost 2.2 us on an H200 however many they are.
bool FusesNorm(const SkinnyArgs& args) { return args.rows <= 2 && !SkinnyWantsRows(args); }

// Rows of e4m3 weights that are codes however the weight is divided.
constexpr int kCodedAnyway = 9;

bool StoresFloat(Epilogue epilogue) {
  return epilogue == Epilogue::kLogits || epilogue == Epilogue::kResidual;
}

// Of the library's smallest tiles that are fast. 64 of an H200's 132 multiprocessors, with a tile
// each, take in 0.8 of the memory's rate; a third of them do no worse than the kernel of 64 rows.
constexpr int32_t kTileChannels = 64;
constexpr int32_t kBusyPart = 3;

// The way of streamed weights.
bool GoesToLibrary(CudaContext& cuda, const ProductGroup& group, int32_t rows) {
  if (cuda.device().major < 9) return true;
  if (cuda.numerics() == Numerics::kDecodeRows) {
    return FillsDevice(group, cuda.device(), cuda.gemm());
  }
  return cuda.numerics() != Numerics::kFast ||
         cuda.costs().Choose(group, rows) == ProductWay::kGemm;
}

// As what few rows of a launch whose weights are streamed enter. As codes of e4m3, which the
// library would multiply, too, both operands come to the tensor cores as they lie; that makes up
// for what codes cost, a kernel, where rows of weights stay in one place or rows are several.
std::optional<CodeKind> CodesStreamed(CudaContext& cuda, const SkinnyArgs& args) {
  if (args.method != SkinnyMethod::kByRows) return std::nullopt;
  const std::optional<CodeKind> kept = SkinnyKeepsCodes(args);
  if (args.dtype != DType::kF8Channel) return kept;
  if (!cuda.gemm().ReadsCodes(args.dtype, args.tasks[0].out, args.in)) return std::nullopt;
  if (kept.has_value()) return kept;
  return args.rows >= kCodedAnyway ? std::optional(CodeKind::kE4m3Rows) : std::nullopt;
}

// One launch over some rows of tasks that have the same rows, as its kernels see it: rows begin at
// 0.
class Product {
 public:
  Product(CudaContext& cuda, const LinearOp::Params& p, std::span<const LinearTask> tasks,
          DType dtype, int32_t begin, int32_t rows)
      : cuda_(cuda), p_(p), tasks_(tasks), dtype_(dtype), begin_(begin), rows_(rows) {}

  void Run(bool streams) {
    coded_ = cuda_.TakeCodedRows();
    roomy_ = cuda_.TakeRoomyRows();
    if (cuda_.numerics() != Numerics::kFast) return RunFixed(streams);
    if (!streams) return RunGeneric(GenericMethod::kByRows);
    RunWay(GoesToLibrary(cuda_, Group(), rows()) ? ProductWay::kGemm : ProductWay::kSkinny);
  }
  void RunTrial(const TrialLaunch& launch) {
    if (launch.coded) {
      const bool streams = *launch.way == ProductWay::kSkinny;
      const std::optional<CodeKind> kind =
          streams ? CodesStreamed(cuda_, SkinnyArgsOf(SkinnyMethod::kByRows)) : std::nullopt;
      coded_ = {{x(), rows(), p_.in}, kind.value_or(CodeKind::kE4m3Rows)};
    }
    // As in a layer of streamed products.
    if (normed()) roomy_ = {Norm({}).x, rows(), p_.in};
    RunWay(*launch.way);
  }

 private:
  void RunWay(ProductWay way) {
    if (way == ProductWay::kGemm) return RunGemm();
    InPieces(kSkinnyMaxRows, [](Product& piece) { piece.RunSkinny(SkinnyMethod::kByRows); });
  }
  // By the role of the rows, never by their number.
  void RunFixed(bool streams) {
    const bool decodes = cuda_.numerics() == Numerics::kDecodeRows;
    if (!streams) {
      if (!decodes) return RunGeneric(GenericMethod::kMany);
      return InPieces(kGenericFewRows,
                      [](Product& piece) { piece.RunGeneric(GenericMethod::kFew); });
    }
    if (!GoesToLibrary(cuda_, Group(), rows())) {
      return InPieces(kSkinnyMaxRows,
                      [](Product& piece) { piece.RunSkinny(SkinnyMethod::kFixed); });
    }
    if (p_.epilogue != Epilogue::kLogits) return RunGemm();
    InPieces(kLogitsRows, [](Product& piece) { piece.RunGemm(); });
  }
  // Calls `run` with the product of at most `most` rows at a time.
  template <typename Run>
  void InPieces(int32_t most, Run run) {
    for (int32_t done = 0; done < rows_; done += most) {
      Product piece(cuda_, p_, tasks_, dtype_, begin_ + done, std::min(most, rows_ - done));
      piece.coded_ = coded_;
      piece.roomy_ = roomy_;
      run(piece);
    }
  }
  [[nodiscard]] int32_t rows() const { return rows_; }
  // What was measured of such a launch.
  [[nodiscard]] ProductGroup Group() const {
    ProductGroup group{.dtype = dtype_, .form = FormOf(p_.epilogue), .in = p_.in};
    for (size_t i = 0; i < tasks_.size(); ++i) group.outs[i] = tasks_[i].out;
    return group;
  }
  // First of the launch's rows of the input.
  [[nodiscard]] Bf16* x() const {
    return const_cast<Bf16*>(static_cast<const Bf16*>(p_.x.x)) + int64_t{begin_} * p_.in;
  }
  [[nodiscard]] const int32_t* y_rows() const {
    return p_.y_rows == nullptr ? nullptr : p_.y_rows + begin_;
  }
  // Where the launch's row 0 goes, or row 0 of all where `y_rows` names rows.
  [[nodiscard]] void* y(const LinearTask& task, void* base) const {
    const int64_t shift = p_.y_rows == nullptr ? begin_ * task.y_stride : 0;
    return static_cast<std::byte*>(base) + shift * (StoresFloat(p_.epilogue) ? 4 : 2);
  }
  [[nodiscard]] const Bf16* addend(const void* base, int64_t stride) const {
    return base == nullptr ? nullptr : static_cast<const Bf16*>(base) + begin_ * stride;
  }
  [[nodiscard]] bool normed() const { return p_.residual != nullptr; }

  [[nodiscard]] RmsNormArgs Norm(const RowOutput& out) const {
    return {.x = p_.x_rows == nullptr ? p_.residual + int64_t{begin_} * p_.in : p_.residual,
            .x_rows = p_.x_rows == nullptr ? nullptr : p_.x_rows + begin_,
            .weight = tasks_[0].norm,
            .epsilon = p_.epsilon,
            .rows = rows(),
            .width = p_.in,
            .out = out};
  }
  void NormToRows() const {
    if (!normed()) return;
    cuda_.Check(LaunchRmsNorm(Norm({.y = x(), .stride = p_.in}), cuda_.stream()), "rms_norm");
  }

  // The rows' codes, in the context's buffers.
  RowCodes CodeRows(CodeKind kind) const {
    const bool left = !normed() && coded_ == CodedRows{{x(), rows(), p_.in}, kind};
    if (left && kind != CodeKind::kE4m3Rows) return cuda_.left_codes(kind);
    const RowOutput out{.codes = cuda_.read_codes(kind), .stride = p_.in};
    if (normed()) {
      cuda_.Check(LaunchRmsNorm(Norm(out), cuda_.stream()), "rms_norm");
    } else if (!left) {
      cuda_.Check(
          LaunchCodeRows({.x = x(), .x_stride = p_.in, .rows = rows(), .width = p_.in, .out = out},
                         cuda_.stream()),
          "coding rows");
    }
    return out.codes;
  }

  // Of a launch that reads these rows.
  [[nodiscard]] SkinnyPlace PlaceBehind(const void* read) const {
    return roomy_ == ActivationRows{read, rows(), p_.in} ? SkinnyPlace::kBeside
                                                         : SkinnyPlace::kAlone;
  }
  // All but what x is.
  [[nodiscard]] SkinnyArgs SkinnyArgsOf(SkinnyMethod method) const {
    SkinnyArgs args{.dtype = dtype_, .in = p_.in, .rows = rows()};
    args.method = method;
    for (const LinearTask& task : tasks_) {
      args.tasks[args.task_count++] = {.weight = task.weight,
                                       .up = task.up,
                                       .bias = task.bias,
                                       .up_bias = task.up_bias,
                                       .addend = addend(task.addend, task.addend_stride),
                                       .up_addend = addend(task.up_addend, task.addend_stride),
                                       .addend_stride = task.addend_stride,
                                       .y = y(task, task.y),
                                       .y_stride = task.y_stride,
                                       .out = task.out};
    }
    constexpr SkinnyEpilogue kEpilogues[] = {SkinnyEpilogue::kStore, SkinnyEpilogue::kStoreFloat,
                                             SkinnyEpilogue::kResidual, SkinnyEpilogue::kGatedSilu,
                                             SkinnyEpilogue::kGatedGeluTanh};
    args.epilogue = kEpilogues[static_cast<int>(p_.epilogue)];
    args.y_rows = y_rows();
    args.workspace = cuda_.skinny_workspace();
    return args;
  }

  void RunSkinny(SkinnyMethod method) const {
    SkinnyArgs args = SkinnyArgsOf(method);
    if (const std::optional<CodeKind> kind = CodesStreamed(cuda_, args); kind.has_value()) {
      args.x_codes = CodeRows(*kind);
    } else if (normed() && method == SkinnyMethod::kByRows && FusesNorm(args)) {
      const RmsNormArgs norm = Norm({});
      args.residual = norm.x;
      args.x_rows = norm.x_rows;
      args.norm_weight = norm.weight;
      args.epsilon = norm.epsilon;
      args.place = PlaceBehind(norm.x);
    } else {
      NormToRows();
      args.x = x();
      args.place = PlaceBehind(args.x);
    }
    cuda_.Check(LaunchSkinny(args, cuda_.stream()), "a product of few rows");
    // Not of q, k and v: attention lies between.
    if (p_.epilogue != Epilogue::kStore && args.place == SkinnyPlace::kAlone &&
        args.x_codes.codes == nullptr && !SkinnyKeepsRows(args)) {
      cuda_.LeaveRoomBehind({args.tasks[0].y, rows(), tasks_[0].out});
    }
  }

  void RunGemm() {
    const LinearTask& first = tasks_[0];
    GemmArgs args{.dtype = dtype_, .in = p_.in, .rows = rows(), .x = x()};
    args.int4_layout = Int4Layout::kPacked;
    if (cuda_.gemm().ReadsCodes(dtype_, first.out, p_.in)) {
      const RowCodes codes = CodeRows(CodeKind::kE4m3Rows);
      args.x = nullptr;
      args.x_codes = codes.codes;
      args.x_scales = codes.scales;
    } else {
      NormToRows();
    }
    args.epilogue = p_.epilogue == Epilogue::kLogits     ? GemmEpilogue::kStoreFloat
                    : p_.epilogue == Epilogue::kResidual ? GemmEpilogue::kResidual
                                                         : GemmEpilogue::kStore;
    args.y_rows = y_rows();
    GemmArgs products[kSkinnyMaxTasks];
    size_t count = 0;
    for (const LinearTask& task : tasks_) {
      args.out = task.out;
      args.weight = task.weight;
      args.bias = task.bias;
      args.addend = addend(task.addend, task.addend_stride);
      args.addend_stride = task.addend_stride;
      args.y = y(task, task.y);
      args.y_stride = task.y_stride;
      products[count++] = args;
      if (!IsGated(p_.epilogue)) continue;
      args.weight = task.up;
      args.bias = task.up_bias;
      args.addend = addend(task.up_addend, task.addend_stride);
      args.y = y(task, p_.up_scratch);
      products[count++] = args;
      cuda_.Fail(cuda_.gemm().RunTogether({products, count}, cuda_.stream()));
      GateCoded(task);
      count = 0;
    }
    cuda_.Fail(cuda_.gemm().RunTogether({products, count}, cuda_.stream()));
  }

  void RunGeneric(GenericMethod method) {
    NormToRows();
    GenericLinearArgs args{.dtype = dtype_,
                           .x = x(),
                           .x_stride = p_.in,
                           .method = method,
                           .rows = rows(),
                           .in = p_.in};
    for (const LinearTask& task : tasks_) {
      args.weight = task.weight;
      args.bias = task.bias;
      args.addend = addend(task.addend, task.addend_stride);
      args.addend_stride = task.addend_stride;
      args.y = y(task, task.y);
      args.y_stride = task.y_stride;
      args.y_rows = y_rows();
      args.epilogue = p_.epilogue == Epilogue::kLogits     ? GenericEpilogue::kStoreFloat
                      : p_.epilogue == Epilogue::kResidual ? GenericEpilogue::kResidual
                                                           : GenericEpilogue::kStore;
      args.out = task.out;
      cuda_.Check(LaunchGenericLinear(args, cuda_.stream()), "a product");
      if (!IsGated(p_.epilogue)) continue;
      args.weight = task.up;
      args.bias = task.up_bias;
      args.addend = addend(task.up_addend, task.addend_stride);
      args.y = y(task, p_.up_scratch);
      cuda_.Check(LaunchGenericLinear(args, cuda_.stream()), "a product");
      Gate(task, {});
    }
  }

  // As what the product that usually follows a gated one reads y, all rows at once.
  [[nodiscard]] std::optional<CodeKind> CodesGated() const {
    const LinearTask& task = tasks_[0];
    if (p_.tasks.size() != 1 || task.y_stride != task.out || task.out > kMaxCodedWidth) {
      return std::nullopt;
    }
    return CodesWanted(
        cuda_, {.dtype = dtype_, .form = ProductForm::kResidual, .in = task.out, .outs = {p_.in}},
        rows());
  }
  void GateCoded(const LinearTask& task) const {
    const std::optional<CodeKind> kind = CodesGated();
    if (!kind.has_value()) return Gate(task, {});
    const bool by_rows = *kind == CodeKind::kE4m3Rows;
    Gate(task, {.codes = by_rows ? cuda_.read_codes(*kind) : cuda_.left_codes(*kind)});
    cuda_.LeaveCodesOf({{y(task, task.y), rows(), task.out}, *kind});
  }
  // y = activation(y) * up_scratch, and its codes where `out` has room for them.
  void Gate(const LinearTask& task, RowOutput out) const {
    out.y = static_cast<Bf16*>(y(task, task.y));
    out.stride = task.y_stride;
    cuda_.Check(LaunchGatedActivation(
                    {.gate = out.y,
                     .up = static_cast<const Bf16*>(y(task, p_.up_scratch)),
                     .gate_stride = task.y_stride,
                     .up_stride = task.y_stride,
                     .kind = p_.epilogue == Epilogue::kGatedSilu ? ActivationKind::kSilu
                                                                 : ActivationKind::kGeluTanh,
                     .rows = rows(),
                     .width = task.out,
                     .out = out},
                    cuda_.stream()),
                "gated_activation");
  }

  CudaContext& cuda_;
  const LinearOp::Params& p_;
  std::span<const LinearTask> tasks_;
  DType dtype_;
  int32_t begin_;
  int32_t rows_;
  CodedRows coded_;
  ActivationRows roomy_;  // whose writer left room beside each of its blocks
};

// Whether the kernels that stream a weight serve it; the generic one serves what is left.
template <DType dtype, bool streams>
void Run(ExecContext& context, const LinearOp::Params& p) {
  CudaContext& cuda = CudaContext::Of(context);
  // q, k and v of one member are one launch; they lie apart where there are several members.
  LinearTask together[kSkinnyMaxTasks];
  for (size_t first = 0; first < p.tasks.size(); ++first) {
    const LinearTask& task = p.tasks[first];
    const auto same = [&](const LinearTask& other) {
      return other.row_begin == task.row_begin && other.row_count == task.row_count;
    };
    const bool seen =
        std::any_of(p.tasks.begin(), p.tasks.begin() + static_cast<long>(first), same);
    if (seen || task.row_count == 0) continue;
    size_t count = 0;
    for (size_t i = first; i < p.tasks.size() && count < kSkinnyMaxTasks; ++i) {
      if (same(p.tasks[i])) together[count++] = p.tasks[i];
    }
    Product(cuda, p, {together, count}, dtype, task.row_begin, task.row_count).Run(streams);
  }
}

template <DType dtype, bool streams>
std::string Missing(const LinearOp::Desc& desc) {
  if (desc.weight != dtype) return absl::StrCat("weight ", InfoOf(desc.weight).name);
  if (desc.normed || desc.gated) {
    const std::string width = MissingRowWidth(desc.normed ? desc.in : desc.out);
    if (!width.empty()) return width;
  }
  if (streams) return MissingStreamed(dtype, desc.in, desc.out);
  return MissingGenericLinear(dtype, desc.in, desc.out);
}

template <DType... dtypes>
void AddStreamed(Registry& registry) {
  (registry.Add<LinearOp>("linear.streamed", Missing<dtypes, true>, Run<dtypes, true>, 0), ...);
}

// Int4 weights that can be streamed are kept in another order than this reads: those above come
// first.
template <DType... dtypes>
void AddGeneric(Registry& registry) {
  (registry.Add<LinearOp>("linear.generic", Missing<dtypes, false>, Run<dtypes, false>, 1), ...);
}

}  // namespace

std::string MissingStreamed(DType dtype, int64_t in, int64_t out) {
  const std::string skinny = MissingSkinny(dtype, in, out, 1);
  return skinny.empty() ? MissingGemm(dtype, out, in) : skinny;
}

ProductForm FormOf(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::kStore:
      return ProductForm::kStore;
    case Epilogue::kLogits:
      return ProductForm::kLogits;
    case Epilogue::kResidual:
      return ProductForm::kResidual;
    case Epilogue::kGatedSilu:
    case Epilogue::kGatedGeluTanh:
      break;
  }
  return ProductForm::kGated;
}

ProductGroup GroupOf(const LinearGroup& group) {
  ProductGroup found{
      .dtype = group.weight, .form = FormOf(group.epilogue), .in = static_cast<int32_t>(group.in)};
  for (size_t i = 0; i < group.outs.size(); ++i) {
    found.outs[i] = static_cast<int32_t>(group.outs[i]);
  }
  return found;
}

std::optional<CodeKind> CodesWanted(CudaContext& cuda, const ProductGroup& group, int32_t rows) {
  if (GoesToLibrary(cuda, group, rows)) {
    const bool reads = cuda.gemm().ReadsCodes(group.dtype, group.outs[0], group.in);
    return reads ? std::optional(CodeKind::kE4m3Rows) : std::nullopt;
  }
  if (cuda.numerics() != Numerics::kFast || rows > kSkinnyMaxRows) return std::nullopt;
  SkinnyArgs args{.dtype = group.dtype, .in = group.in, .rows = rows};
  args.epilogue =
      group.form == ProductForm::kResidual ? SkinnyEpilogue::kResidual : SkinnyEpilogue::kStore;
  for (const int32_t out : group.outs) {
    if (out == 0) break;
    if (!MissingSkinny(group.dtype, group.in, out, rows).empty()) return std::nullopt;
    args.tasks[args.task_count++] = {.y_stride = out, .out = out};
  }
  return CodesStreamed(cuda, args);
}

Status LaunchProducts(const TrialLaunch& launch, CudaContext& cuda) {
  const std::span<const LinearTask> tasks = launch.params.tasks;
  Product product(cuda, launch.params, tasks, launch.dtype, 0, tasks[0].row_count);
  if (launch.way.has_value()) {
    product.RunTrial(launch);
    (void)cuda.TakeCodedRows();
    (void)cuda.TakeRoomyRows();
  } else {
    product.Run(true);
  }
  return cuda.TakeError();
}

bool FillsDevice(const ProductGroup& group, const DeviceInfo& device, const GemmEngine& gemm) {
  int64_t channels = 0;
  for (const int32_t out : group.outs) {
    if (out == 0) break;
    if (group.dtype != DType::kBF16 && !gemm.ReadsCodes(group.dtype, out, group.in)) return false;
    channels += group.form == ProductForm::kGated ? 2 * out : out;
  }
  return kBusyPart * channels >= int64_t{kTileChannels} * device.multiprocessors;
}

Status PrepareRowInvariant(std::span<const LinearGroup> groups, const RowInvariantRows& rows,
                           const DeviceInfo& device, GemmEngine& gemm) {
  for (const LinearGroup& given : groups) {
    const ProductGroup group = GroupOf(given);
    const bool logits = group.form == ProductForm::kLogits;
    const GemmEpilogue epilogue = logits                                 ? GemmEpilogue::kStoreFloat
                                  : group.form == ProductForm::kResidual ? GemmEpilogue::kResidual
                                                                         : GemmEpilogue::kStore;
    const int32_t most = logits ? std::min<int32_t>(rows.max_rows, kLogitsRows) : rows.max_rows;
    const bool decodes = FillsDevice(group, device, gemm);
    for (const int32_t out : group.outs) {
      if (out == 0 || !MissingStreamed(group.dtype, group.in, out).empty()) continue;
      const GemmShape shape{group.dtype, out, group.in, epilogue};
      // For few rows the library's first answer without a split is often a poor one.
      if (decodes) {
        TESSERA_RETURN_IF_ERROR(
            gemm.Prepare(shape, std::min(most, rows.decode_rows), GemmSearch::kTimed));
      }
      TESSERA_RETURN_IF_ERROR(gemm.Prepare(shape, most, GemmSearch::kHeuristic));
    }
  }
  return absl::OkStatus();
}

void Register_linear(Registry& registry) {
  AddStreamed<DType::kBF16, DType::kF8Channel, DType::kF8Block128, DType::kI8Channel,
              DType::kI4G128, DType::kI4G64, DType::kI4G128Zero, DType::kI4G64Zero>(registry);
  AddGeneric<DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
             DType::kF8Channel, DType::kF8Block128, DType::kI8Channel, DType::kI4G128,
             DType::kI4G64, DType::kI4G128Zero, DType::kI4G64Zero>(registry);
}

}  // namespace tessera::kernels::cuda
