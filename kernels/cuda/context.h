// A stream of a CUDA device behind the ExecContext interface: what kernels of the backend launch on
// and the scratch that they share.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/attention/prefill.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/linear/cost_table.h"
#include "kernels/cuda/linear/gemm.h"
#include "kernels/cuda/ops/sample.h"
#include "kernels/cuda/row_codes.h"
#include "kernels/exec_context.h"
#include "kernels/kept_costs.h"

namespace tessera::kernels::cuda {

// Rows of logits that a step makes at a time.
inline constexpr uint32_t kLogitsRows = 512;

// What PrepareAttention makes of a plan's rows: those of few queries for one kernel, those of many
// for the other.
struct PreparedAttention {
  DecodePlan decode;
  const std::byte* decode_plan = nullptr;  // device
  int32_t max_q_rows = 1;                  // of the decode rows
  uint32_t most_decode_rows = 0;           // that a recorded launch may meet
  bool one_query_each = false;             // every row of the launch is a decode row of one query
  PrefillPlan prefill;
  std::byte* prefill_plan = nullptr;  // device
};

// Rows of activations, as a product reads them.
struct ActivationRows {
  const void* x = nullptr;  // [rows, width], bf16 or, of the residual stream, float32
  int32_t rows = 0;
  int32_t width = 0;

  bool operator==(const ActivationRows&) const = default;
};

// Rows whose codes the context holds.
struct CodedRows {
  ActivationRows rows;
  CodeKind kind = CodeKind::kE4m3Rows;

  bool operator==(const CodedRows&) const = default;
};

class CudaContext final : public ExecContext {
 public:
  [[nodiscard]] static StatusOr<std::unique_ptr<CudaContext>> Create(
      const DeviceInfo& device, DeviceMemory& memory, KeptCosts<CostTable>& costs, ThreadPool& pool,
      const Backend::ContextNeeds& needs);
  ~CudaContext() override;

  static CudaContext& Of(ExecContext& context) { return static_cast<CudaContext&>(context); }

  [[nodiscard]] cudaStream_t stream() const { return stream_; }
  [[nodiscard]] const DeviceInfo& device() const { return device_; }
  // Remembers the first error: the next Wait returns it.
  void Check(cudaError_t error, const char* what) {
    if (error != cudaSuccess) Fail(StatusOf(error, what));
  }
  void Fail(const Status& status) {
    if (error_.ok() && !status.ok()) error_ = status;
  }
  // The error that is remembered, which is then forgotten: for launches on trial.
  [[nodiscard]] Status TakeError() { return std::exchange(error_, absl::OkStatus()); }

  // Copies a few host bytes to the device behind what was launched; the address is good for
  // launches until as much again was uploaded twice over. Not while launches are recorded.
  [[nodiscard]] const std::byte* Upload(std::span<const std::byte> bytes);
  // Room in that ring, to be written by the host before UploadReserved of it.
  [[nodiscard]] Mirrored<std::byte> Reserve(uint64_t bytes);
  void UploadReserved(const Mirrored<std::byte>& piece, uint64_t bytes);

  [[nodiscard]] std::byte* skinny_workspace() const { return skinny_workspace_->data(); }
  [[nodiscard]] std::byte* decode_workspace() const { return decode_workspace_->data(); }
  [[nodiscard]] size_t decode_partials() const {
    return numerics_ == Numerics::kDecodeRows ? sequence_partials_ : decode_partials_;
  }
  [[nodiscard]] std::byte* prefill_workspace() const { return prefill_workspace_->data(); }
  [[nodiscard]] std::byte* sample_workspace() const { return sample_workspace_->data(); }
  // The slots that sample rows name, as the sampler wants them.
  [[nodiscard]] std::span<const SampleSlots> SlotsOf(std::span<const SampleRow> rows) {
    sample_slots_.clear();
    for (const SampleRow& row : rows) {
      sample_slots_.push_back({.slot = row.slot, .pending = row.pending});
    }
    return sample_slots_;
  }
  [[nodiscard]] Numerics numerics() const { return numerics_; }
  [[nodiscard]] GemmEngine& gemm() {
    return numerics_ == Numerics::kFast ? *gemm_ : *invariant_gemm_;
  }
  [[nodiscard]] const CostTable& costs() const { return costs_.table; }
  // Where products make codes of the rows that they read.
  [[nodiscard]] RowCodes read_codes(CodeKind kind) const {
    const Buffer& scales = kind == CodeKind::kE4m3Rows ? *row_scales_ : *group_scales_;
    return CodesIn(*row_codes_, scales, kind);
  }
  // Where kernels that may read such themselves leave codes by groups of what they write.
  [[nodiscard]] RowCodes left_codes(CodeKind kind) const {
    return CodesIn(*left_codes_, *left_scales_, kind);
  }
  // A kernel that left codes of what it wrote says so; the next product, whichever it is, takes the
  // note away: it is good for that one alone, as later ones may follow other writers of the rows or
  // of the codes.
  void LeaveCodesOf(const CodedRows& rows) { coded_rows_ = rows; }
  [[nodiscard]] CodedRows TakeCodedRows() { return std::exchange(coded_rows_, {}); }
  // The same of a product whose blocks have a multiprocessor each, with room for one of the next.
  void LeaveRoomBehind(const ActivationRows& rows) { roomy_rows_ = rows; }
  [[nodiscard]] ActivationRows TakeRoomyRows() { return std::exchange(roomy_rows_, {}); }

  bool batch_invariant() const override { return false; }
  Status deterministic() const override { return deterministic_; }
  void SetNumerics(Numerics numerics) override;
  int max_in_flight() const override { return 2; }
  StatusOr<std::vector<StepArena>> MakeArenas(uint64_t bytes) override;
  void Publish(StepArena& inputs) override;
  void Fetch(StepArena& outputs) override;
  uint64_t Mark() override;
  Status Wait(uint64_t mark) override;
  uint64_t IdleNanoseconds(uint64_t mark) override;
  void PrepareAttention(const AttentionShape& shape, AttentionPlan& plan,
                        StepArena& inputs) override;
  uint64_t AttentionPlanBytes(const AttentionShape& shape, uint32_t rows) const override;
  void RunRecorded(std::span<const uint32_t> key, absl::FunctionRef<void()> launch) override;
  uint32_t RecordedRows(uint32_t rows) const override;
  void DropRecorded() override;

 private:
  static RowCodes CodesIn(const Buffer& codes, const Buffer& scales, CodeKind kind) {
    return {reinterpret_cast<uint8_t*>(codes.data()), reinterpret_cast<float*>(scales.data()),
            kind};
  }
  static constexpr size_t kMarks = 8;
  struct MarkEvents {
    cudaEvent_t begin = nullptr;  // before the step's first copy
    cudaEvent_t end = nullptr;
  };
  // Finds a key without making a vector of it.
  struct KeyLess {
    using is_transparent = void;
    using Key = std::span<const uint32_t>;
    bool operator()(Key a, Key b) const {
      return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
    }
  };
  struct Recorded {
    cudaGraphExec_t graph = nullptr;
    uint32_t runs = 0;
    uint64_t used = 0;  // when it was last played
  };

  CudaContext(const DeviceInfo& device, DeviceMemory& memory, KeptCosts<CostTable>& costs,
              ThreadPool& pool)
      : ExecContext(pool, 0), device_(device), memory_(memory), costs_(costs) {}
  Status Allocate(const Backend::ContextNeeds& needs);
  Status AllocateCodes(const Backend::ContextNeeds& needs);
  Status AllocateAttention(const Backend::ContextNeeds& needs);
  [[nodiscard]] StatusOr<std::unique_ptr<GemmEngine>> MakeGemm(GemmNumerics numerics) const;
  // Products that keep a row's bits, for all that occur.
  [[nodiscard]] Status PrepareDeterministic(const Backend::ContextNeeds& needs);
  [[nodiscard]] DecodePlanOptions PlanOptions(const AttentionShape& shape,
                                              DecodeSplits splits) const;
  [[nodiscard]] PrefillPlanOptions PrefillOptions(const AttentionShape& shape) const;
  void Record(Recorded& recorded, absl::FunctionRef<void()> launch);
  void DropOldest();

  DeviceInfo device_;
  DeviceMemory& memory_;
  KeptCosts<CostTable>& costs_;  // the backend's
  cudaStream_t stream_ = nullptr;
  Status error_;
  std::array<MarkEvents, kMarks> marks_;
  uint64_t marked_ = 0;
  bool step_begun_ = false;

  std::shared_ptr<Buffer> ring_host_, ring_device_;
  uint64_t ring_used_ = 0;
  cudaEvent_t ring_half_[2] = {nullptr, nullptr};  // what was launched from each half

  std::shared_ptr<Buffer> skinny_workspace_, decode_workspace_, prefill_workspace_,
      sample_workspace_, gemm_workspace_;
  std::shared_ptr<Buffer> row_codes_, row_scales_, group_scales_, left_codes_, left_scales_;
  CodedRows coded_rows_;
  ActivationRows roomy_rows_;
  size_t decode_partials_ = 0;
  size_t sequence_partials_ = 0;  // where splits depend on a row alone
  uint32_t max_sequences_ = 0;
  std::unique_ptr<GemmEngine> gemm_, invariant_gemm_;  // of one workspace
  Status deterministic_ = absl::FailedPreconditionError("no such kernels were asked for");
  Numerics numerics_ = Numerics::kFast;

  std::vector<PreparedAttention> prepared_;  // of the step being launched; never reallocated
  std::vector<SampleSlots> sample_slots_;
  std::vector<DecodeRow> decode_rows_;
  std::vector<PrefillRow> prefill_rows_;
  std::map<std::vector<uint32_t>, Recorded, KeyLess> recorded_;
  uint64_t recorded_clock_ = 0;
};

}  // namespace tessera::kernels::cuda
