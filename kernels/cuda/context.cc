#include "kernels/cuda/context.h"

#include <algorithm>
#include <cstring>

#include "config/foundation/check.h"
#include "kernels/cuda/catalog/linear.h"
#include "kernels/cuda/linear/cost_calibration.h"
#include "kernels/cuda/linear/skinny.h"
#include "kernels/cuda/ops/sample.h"

namespace tessera::kernels::cuda {
namespace {

// Runs of at most this many queries go to the decode kernel; of decoding rows that keep their bits,
// all, each a query.
constexpr int32_t kMaxDecodeQueries = 8;
constexpr uint64_t kRingBytes = 16 << 20;  // of two halves
// Recorded steps that are kept: each holds a few hundred launches.
constexpr size_t kMaxRecorded = 96;
constexpr size_t kMaxPrepared = 4096;

}  // namespace

StatusOr<std::unique_ptr<CudaContext>> CudaContext::Create(const DeviceInfo& device,
                                                           DeviceMemory& memory,
                                                           KeptCosts<CostTable>& costs,
                                                           ThreadPool& pool,
                                                           const Backend::ContextNeeds& needs) {
  auto context = std::unique_ptr<CudaContext>(new CudaContext(device, memory, costs, pool));
  // The engine's thread makes its context and is the only one to launch.
  TESSERA_RETURN_IF_ERROR(StatusOf(cudaSetDevice(device.index), "choosing the device"));
  TESSERA_RETURN_IF_ERROR(context->Allocate(needs));
  return context;
}

Status CudaContext::Allocate(const Backend::ContextNeeds& needs) {
  TESSERA_RETURN_IF_ERROR(
      StatusOf(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"));
  for (MarkEvents& mark : marks_) {
    TESSERA_RETURN_IF_ERROR(StatusOf(cudaEventCreate(&mark.begin), "creating an event"));
    TESSERA_RETURN_IF_ERROR(StatusOf(cudaEventCreate(&mark.end), "creating an event"));
  }
  for (cudaEvent_t& half : ring_half_) {
    TESSERA_RETURN_IF_ERROR(
        StatusOf(cudaEventCreateWithFlags(&half, cudaEventDisableTiming), "creating an event"));
  }
  TESSERA_ASSIGN_OR_RETURN(ring_host_, AllocatePinned(kRingBytes, "upload ring"));
  TESSERA_ASSIGN_OR_RETURN(ring_device_, memory_.Allocate(kRingBytes, "upload ring"));
  if (device_.major >= 9) {
    TESSERA_ASSIGN_OR_RETURN(skinny_workspace_,
                             memory_.Allocate(SkinnyWorkspaceBytes(), "products' workspace"));
  }
  max_sequences_ = static_cast<uint32_t>(needs.max_sequences);
  TESSERA_RETURN_IF_ERROR(AllocateAttention(needs));
  TESSERA_ASSIGN_OR_RETURN(
      sample_workspace_,
      memory_.Allocate(SampleWorkspaceBytes(static_cast<int32_t>(std::min<uint64_t>(
                                                needs.max_rows, needs.max_sequences)),
                                            static_cast<int32_t>(needs.max_vocab)),
                       "sampler's workspace"));
  TESSERA_ASSIGN_OR_RETURN(gemm_workspace_,
                           memory_.Allocate(kGemmWorkspaceBytes, "products' workspace"));
  TESSERA_RETURN_IF_ERROR(AllocateCodes(needs));
  TESSERA_ASSIGN_OR_RETURN(gemm_, MakeGemm(GemmNumerics::kFast));
  std::vector<ProductGroup> groups;
  for (const LinearGroup& product : needs.products) groups.push_back(GroupOf(product));
  const CostKey key = CostKeyOf(device_, *gemm_);
  costs_.Load(key);
  // Memory that is short costs speed: what was not measured goes by rules.
  const Status measured = CalibrateCosts(
      groups, static_cast<int32_t>(needs.max_rows),
      {.gemm = *gemm_,
       .memory = memory_,
       .stream = stream_,
       .launch = [this](const TrialLaunch& launch) { return LaunchProducts(launch, *this); },
       .streams = skinny_workspace_ != nullptr},
      costs_.table);
  if (!measured.ok() && !absl::IsResourceExhausted(measured)) return measured;
  if (needs.deterministic) deterministic_ = PrepareDeterministic(needs);
  costs_.Save(key);
  // One for each shape of each stage.
  prepared_.reserve(kMaxPrepared);
  sample_slots_.reserve(needs.max_rows + needs.max_sequences);
  decode_rows_.reserve(needs.max_sequences);
  prefill_rows_.reserve(needs.max_sequences);
  return absl::OkStatus();
}

StatusOr<std::unique_ptr<GemmEngine>> CudaContext::MakeGemm(GemmNumerics numerics) const {
  return GemmEngine::Create({.device = device_.index,
                             .numerics = numerics,
                             .workspace = gemm_workspace_->data(),
                             .workspace_bytes = gemm_workspace_->size(),
                             .library_directories = {}});
}

Status CudaContext::PrepareDeterministic(const Backend::ContextNeeds& needs) {
  TESSERA_ASSIGN_OR_RETURN(invariant_gemm_, MakeGemm(GemmNumerics::kRowInvariant));
  invariant_gemm_->Import(costs_.table.invariant_algorithms());
  TESSERA_RETURN_IF_ERROR(
      PrepareRowInvariant(needs.products,
                          {.max_rows = static_cast<int32_t>(needs.max_rows),
                           .decode_rows = static_cast<int32_t>(needs.max_sequences)},
                          device_, *invariant_gemm_));
  costs_.table.set_invariant_algorithms(invariant_gemm_->Export());
  return absl::OkStatus();
}

void CudaContext::SetNumerics(Numerics numerics) {
  TESSERA_CHECK(numerics == Numerics::kFast || deterministic_.ok());
  numerics_ = numerics;
}

Status CudaContext::AllocateCodes(const Backend::ContextNeeds& needs) {
  // Trials of products have a few rows more than a small step may have.
  const auto trial_rows = std::lower_bound(CostTable::kRows.begin(), CostTable::kRows.end(),
                                           static_cast<int64_t>(needs.max_rows));
  const uint64_t rows = trial_rows == CostTable::kRows.end() ? needs.max_rows : *trial_rows;
  TESSERA_ASSIGN_OR_RETURN(row_codes_, memory_.Allocate(rows * needs.max_width, "rows as codes"));
  TESSERA_ASSIGN_OR_RETURN(row_scales_, memory_.Allocate(rows * 4, "rows as codes"));
  const uint64_t group_scales = (needs.max_width / kCodeGroup + 1) * kCodeRows * sizeof(float);
  TESSERA_ASSIGN_OR_RETURN(group_scales_, memory_.Allocate(group_scales, "rows as codes"));
  TESSERA_ASSIGN_OR_RETURN(left_codes_,
                           memory_.Allocate(kCodeRows * needs.max_width, "rows as codes"));
  TESSERA_ASSIGN_OR_RETURN(left_scales_, memory_.Allocate(group_scales, "rows as codes"));
  return absl::OkStatus();
}

// One workspace for all shapes: a launch at a time uses it.
Status CudaContext::AllocateAttention(const Backend::ContextNeeds& needs) {
  for (const AttentionShape& shape : needs.attention) {
    decode_partials_ =
        std::max(decode_partials_, DecodePartials(max_sequences_, kMaxDecodeQueries,
                                                  PlanOptions(shape, DecodeSplits::kBalanced)));
    if (!needs.deterministic) continue;
    sequence_partials_ =
        std::max(sequence_partials_,
                 DecodePartials(max_sequences_, 1, PlanOptions(shape, DecodeSplits::kBySequence)));
  }
  uint64_t bytes = 0;
  for (const AttentionShape& shape : needs.attention) {
    const auto bytes_of = [&](size_t partials, int32_t queries) {
      return DecodeWorkspaceBytes(partials, queries, shape.q_heads,
                                  static_cast<int32_t>(shape.kv.kv_heads),
                                  static_cast<int32_t>(shape.kv.head_dim));
    };
    bytes = std::max<uint64_t>(
        {bytes, bytes_of(decode_partials_, kMaxDecodeQueries), bytes_of(sequence_partials_, 1)});
  }
  TESSERA_ASSIGN_OR_RETURN(decode_workspace_, memory_.Allocate(bytes, "attention's workspace"));
  uint64_t prefill_bytes = 0;
  for (const AttentionShape& shape : needs.attention) {
    prefill_bytes = std::max<uint64_t>(
        prefill_bytes, PrefillWorkspaceBytes(PrefillOptions(shape).partials, shape.kv.head_dim));
  }
  TESSERA_ASSIGN_OR_RETURN(prefill_workspace_,
                           memory_.Allocate(prefill_bytes, "attention's workspace"));
  // "Not there yet", to its kernels.
  TESSERA_RETURN_IF_ERROR(
      StatusOf(cudaMemsetAsync(decode_workspace_->data(), 0xff, decode_workspace_->size(), stream_),
               "clearing a workspace"));
  return StatusOf(cudaStreamSynchronize(stream_), "clearing a workspace");
}

CudaContext::~CudaContext() {
  if (stream_ != nullptr) (void)cudaStreamSynchronize(stream_);
  DropRecorded();
  gemm_.reset();
  invariant_gemm_.reset();
  for (MarkEvents& mark : marks_) {
    if (mark.begin != nullptr) (void)cudaEventDestroy(mark.begin);
    if (mark.end != nullptr) (void)cudaEventDestroy(mark.end);
  }
  for (cudaEvent_t half : ring_half_) {
    if (half != nullptr) (void)cudaEventDestroy(half);
  }
  if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
}

Mirrored<std::byte> CudaContext::Reserve(uint64_t bytes) {
  const uint64_t rounded = (bytes + 255) / 256 * 256;
  TESSERA_CHECK(rounded <= kRingBytes / 2);
  const uint64_t half = ring_used_ / (kRingBytes / 2);
  const uint64_t left = (half + 1) * (kRingBytes / 2) - ring_used_;
  if (rounded > left) {
    // The other half is free once what was launched from it has run.
    Check(cudaEventRecord(ring_half_[half], stream_), "an event");
    ring_used_ = half == 0 ? kRingBytes / 2 : 0;
    Check(cudaEventSynchronize(ring_half_[half ^ 1]), "waiting for the device");
  }
  const uint64_t at = ring_used_;
  ring_used_ = (ring_used_ + rounded) % kRingBytes;
  return {.host = ring_host_->data() + at, .device = ring_device_->data() + at};
}

void CudaContext::UploadReserved(const Mirrored<std::byte>& piece, uint64_t bytes) {
  Check(cudaMemcpyAsync(piece.device, piece.host, bytes, cudaMemcpyHostToDevice, stream_),
        "a copy to the device");
}

const std::byte* CudaContext::Upload(std::span<const std::byte> bytes) {
  const Mirrored<std::byte> piece = Reserve(bytes.size());
  std::memcpy(piece.host, bytes.data(), bytes.size());
  UploadReserved(piece, bytes.size());
  return piece.device;
}

StatusOr<std::vector<StepArena>> CudaContext::MakeArenas(uint64_t bytes) {
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<Buffer> device,
                           memory_.Allocate(bytes, "inputs and outputs of a step"));
  std::vector<StepArena> arenas;
  for (int i = 0; i < max_in_flight(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<Buffer> host,
                             AllocatePinned(bytes, "inputs and outputs of a step"));
    arenas.emplace_back(std::move(host), device);
  }
  return arenas;
}

void CudaContext::Publish(StepArena& inputs) {
  if (!step_begun_) {
    Check(cudaEventRecord(marks_[(marked_ + 1) % kMarks].begin, stream_), "an event");
    step_begun_ = true;
  }
  const uint64_t from = inputs.published();
  if (inputs.used() > from) {
    Check(cudaMemcpyAsync(inputs.device() + from, inputs.host() + from, inputs.used() - from,
                          cudaMemcpyHostToDevice, stream_),
          "a copy to the device");
  }
  inputs.set_published(inputs.used());
}

void CudaContext::Fetch(StepArena& outputs) {
  if (outputs.used() == 0) return;
  Check(cudaMemcpyAsync(outputs.host(), outputs.device(), outputs.used(), cudaMemcpyDeviceToHost,
                        stream_),
        "a copy from the device");
}

uint64_t CudaContext::Mark() {
  ++marked_;
  Check(cudaEventRecord(marks_[marked_ % kMarks].end, stream_), "an event");
  step_begun_ = false;
  prepared_.clear();
  return marked_;
}

Status CudaContext::Wait(uint64_t mark) {
  TESSERA_CHECK(marked_ - mark < kMarks);
  if (error_.ok()) {
    error_ = StatusOf(cudaEventSynchronize(marks_[mark % kMarks].end), "a step");
  }
  return error_;
}

uint64_t CudaContext::IdleNanoseconds(uint64_t mark) {
  if (mark < 2) return 0;
  float milliseconds = 0;
  const cudaError_t error = cudaEventElapsedTime(&milliseconds, marks_[(mark - 1) % kMarks].end,
                                                 marks_[mark % kMarks].begin);
  return error == cudaSuccess && milliseconds > 0 ? static_cast<uint64_t>(milliseconds * 1e6) : 0;
}

DecodePlanOptions CudaContext::PlanOptions(const AttentionShape& shape, DecodeSplits splits) const {
  return {.q_heads = shape.q_heads,
          .kv_heads = static_cast<int32_t>(shape.kv.kv_heads),
          .head_dim = static_cast<int32_t>(shape.kv.head_dim),
          .window = shape.window,
          .grid = static_cast<uint32_t>(device_.multiprocessors),
          .splits = splits};
}

PrefillPlanOptions CudaContext::PrefillOptions(const AttentionShape& shape) const {
  const uint32_t blocks = PrefillBlocks(shape.kv.head_dim);
  // Where a context is cut depends on the step's other rows.
  const uint32_t partials = numerics_ == Numerics::kFast ? PrefillPartials(blocks) : 0;
  return {.q_heads = static_cast<uint32_t>(shape.q_heads),
          .kv_heads = shape.kv.kv_heads,
          .window = shape.window,
          .blocks = blocks,
          .partials = partials};
}

uint64_t CudaContext::AttentionPlanBytes(const AttentionShape& shape, uint32_t rows) const {
  uint64_t decode = DecodePlanBytes(max_sequences_, kMaxDecodeQueries,
                                    PlanOptions(shape, DecodeSplits::kBalanced));
  if (sequence_partials_ > 0) {
    decode = std::max<uint64_t>(
        decode, DecodePlanBytes(max_sequences_, 1, PlanOptions(shape, DecodeSplits::kBySequence)));
  }
  const uint64_t prefill = PrefillPlanBytes(max_sequences_, rows, PrefillOptions(shape));
  return decode + prefill + 128;
}

void CudaContext::PrepareAttention(const AttentionShape& shape, AttentionPlan& plan,
                                   StepArena& inputs) {
  decode_rows_.clear();
  prefill_rows_.clear();
  TESSERA_CHECK(prepared_.size() < kMaxPrepared);
  PreparedAttention& prepared = prepared_.emplace_back();
  // The kernels give a query other bits, so that its role alone must choose where bits matter.
  const bool fixed = numerics_ == Numerics::kDecodeRows;
  const int32_t most_queries = fixed ? 1 : numerics_ == Numerics::kFast ? kMaxDecodeQueries : 0;
  size_t queries = 0;
  for (const AttentionRow& row : plan.rows) {
    TESSERA_CHECK(row.page_table != nullptr && (!fixed || row.q_rows == 1));
    if (row.q_rows <= most_queries) {
      prepared.max_q_rows = std::max(prepared.max_q_rows, row.q_rows);
      decode_rows_.push_back({.q_begin = row.q_begin,
                              .q_rows = row.q_rows,
                              .position = row.position,
                              .kv_head = row.kv_head,
                              .table_stride = row.table_stride,
                              .page_table = row.page_table});
    } else {
      prefill_rows_.push_back({.page_table = row.page_table,
                               .table_stride = row.table_stride,
                               .q_begin = row.q_begin,
                               .q_rows = row.q_rows,
                               .position = row.position});
      queries += static_cast<size_t>(row.q_rows);
    }
  }
  if (!decode_rows_.empty()) {
    const DecodePlanOptions options =
        PlanOptions(shape, fixed ? DecodeSplits::kBySequence : DecodeSplits::kBalanced);
    // A recorded step keeps its places whatever the number of rows that it has this time.
    const uint32_t most = std::min(std::max(plan.capacity, 1u), max_sequences_);
    const Mirrored<std::byte> bytes =
        inputs.Take<std::byte>(DecodePlanBytes(most, most_queries, options));
    prepared.decode = BuildDecodePlan(decode_rows_, options, bytes.host);
    prepared.decode_plan = bytes.device;
    prepared.most_decode_rows = most;
  }
  if (!prefill_rows_.empty()) {
    const PrefillPlanOptions options = PrefillOptions(shape);
    const Mirrored<std::byte> bytes =
        inputs.Take<std::byte>(PrefillPlanBytes(prefill_rows_.size(), queries, options));
    prepared.prefill = BuildPrefillPlan(prefill_rows_, options, bytes.host);
    prepared.prefill_plan = bytes.device;
  }
  prepared.one_query_each =
      !decode_rows_.empty() && prefill_rows_.empty() && prepared.max_q_rows == 1 &&
      std::none_of(plan.rows.begin(), plan.rows.end(),
                   [](const auto& row) { return row.kv_head != AttentionRow::kAllKvHeads; });
  plan.prepared = &prepared;
}

uint32_t CudaContext::RecordedRows(uint32_t rows) const {
  if (rows <= 4) return rows;
  const uint32_t step = rows <= 64 ? 8 : rows <= 256 ? 16 : 64;
  return (rows + step - 1) / step * step;
}

void CudaContext::RunRecorded(std::span<const uint32_t> key, absl::FunctionRef<void()> launch) {
  auto found = recorded_.find(key);
  if (found == recorded_.end()) {
    found = recorded_.try_emplace(std::vector<uint32_t>(key.begin(), key.end())).first;
  }
  Recorded& recorded = found->second;
  recorded.used = ++recorded_clock_;
  // Products must launch the same whatever ran before a recording, and a replay leaves other codes.
  (void)TakeCodedRows();
  (void)TakeRoomyRows();
  // The first run loads kernels and plans products, which a recording must not.
  if (recorded.runs++ == 0 || !error_.ok()) {
    launch();
    return;
  }
  if (recorded.graph == nullptr) Record(recorded, launch);
  if (recorded.graph != nullptr) Check(cudaGraphLaunch(recorded.graph, stream_), "a step's graph");
  if (recorded_.size() > kMaxRecorded) DropOldest();
}

void CudaContext::Record(Recorded& recorded, absl::FunctionRef<void()> launch) {
  Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a step");
  if (!error_.ok()) return;
  launch();
  cudaGraph_t graph = nullptr;
  Check(cudaStreamEndCapture(stream_, &graph), "recording a step");
  if (graph == nullptr) return;
  Check(cudaGraphInstantiate(&recorded.graph, graph, 0), "recording a step");
  (void)cudaGraphDestroy(graph);
}

void CudaContext::DropOldest() {
  auto oldest = recorded_.begin();
  for (auto at = recorded_.begin(); at != recorded_.end(); ++at) {
    if (at->second.used < oldest->second.used) oldest = at;
  }
  Check(cudaStreamSynchronize(stream_), "waiting for the device");
  if (oldest->second.graph != nullptr) (void)cudaGraphExecDestroy(oldest->second.graph);
  recorded_.erase(oldest);
}

void CudaContext::DropRecorded() {
  if (recorded_.empty()) return;
  (void)cudaStreamSynchronize(stream_);
  for (auto& [key, recorded] : recorded_) {
    if (recorded.graph != nullptr) (void)cudaGraphExecDestroy(recorded.graph);
  }
  recorded_.clear();
}

}  // namespace tessera::kernels::cuda
