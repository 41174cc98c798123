// Checks and dispatches launches of paged decode attention.
#include <algorithm>

#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/attention/decode_launch.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

struct Workspace {
  size_t values_offset;
  size_t bytes;
};

constexpr size_t Padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

Workspace WorkspaceOf(size_t partials, int32_t columns, int32_t head_dim) {
  const size_t entries = partials * static_cast<size_t>(columns);
  Workspace workspace{};
  workspace.values_offset = Padded(entries * sizeof(float2));
  workspace.bytes =
      workspace.values_offset + entries * static_cast<size_t>(head_dim) * sizeof(float);
  return workspace;
}

int32_t ColumnsOf(int32_t max_q_rows, int32_t q_heads, int32_t kv_heads, int32_t head_dim) {
  const int32_t group = q_heads / kv_heads;
  return std::min(max_q_rows, std::max(1, MaxDecodeColumns(head_dim) / group)) * group;
}

}  // namespace

size_t DecodeWorkspaceBytes(size_t partials, int32_t max_q_rows, int32_t q_heads, int32_t kv_heads,
                            int32_t head_dim) {
  return WorkspaceOf(partials, ColumnsOf(max_q_rows, q_heads, kv_heads, head_dim), head_dim).bytes;
}

std::string MissingDecode(const DecodeArgs& args) {
  const int32_t dims[] = {64, 80, 96, 128, 256};
  if (std::find(std::begin(dims), std::end(dims), args.head_dim) == std::end(dims)) {
    return "head_dim " + std::to_string(args.head_dim) + " (64, 80, 96, 128 or 256)";
  }
  if (args.kv_type != DType::kBF16 && args.kv_type != DType::kF8E4M3) {
    return "pages other than bf16 and e4m3";
  }
  if (args.kv_heads < 1 || args.q_heads < 1 || args.q_heads % args.kv_heads != 0) {
    return "q_heads that are no multiple of kv_heads";
  }
  if (args.q_heads / args.kv_heads > MaxDecodeColumns(args.head_dim)) {
    return std::to_string(args.q_heads / args.kv_heads) + " query heads a KV head (at most " +
           std::to_string(MaxDecodeColumns(args.head_dim)) + ")";
  }
  if (args.q_stride % 8 != 0) return "a q_stride that is no multiple of 8";
  return "";
}

std::string MissingDecodeAppend(const DecodeArgs& args) {
  const RopeAppendArgs& append = args.append;
  const std::string missing = MissingRopeAppend(append);
  if (!missing.empty()) return missing;
  if (args.q_heads / args.kv_heads > 8) return "more than 8 query heads a KV head";
  if (append.rotary_dim % 16 != 0) {
    return "rotary_dim " + std::to_string(append.rotary_dim) + " (a multiple of 16)";
  }
  if (args.max_q_rows != 1) return "runs of several queries";
  return "";
}

bool DecodeLeavesCodes(const DecodeArgs& args) { return args.head_dim == kCodeGroup; }

cudaError_t LaunchDecode(const DecodeArgs& args, cudaStream_t stream) {
  if (args.out_codes.codes != nullptr && !DecodeLeavesCodes(args)) return cudaErrorInvalidValue;
  const int32_t columns = ColumnsOf(args.max_q_rows, args.q_heads, args.kv_heads, args.head_dim);
  const Workspace workspace = WorkspaceOf(args.partials, columns, args.head_dim);
  auto* base = static_cast<std::byte*>(args.workspace);
  DecodeKernelArgs kernel{};
  kernel.items = static_cast<const DecodeItem*>(args.plan);
  kernel.q = args.q;
  kernel.out = args.out;
  kernel.out_codes = args.out_codes;
  kernel.arena = reinterpret_cast<const unsigned char*>(args.arena);
  kernel.statistics = reinterpret_cast<float2*>(base);
  kernel.partial_values = reinterpret_cast<float*>(base + workspace.values_offset);
  kernel.q_stride = args.q_stride;
  kernel.table = args.table;
  kernel.group = args.q_heads / args.kv_heads;
  kernel.group_reciprocal = 65536u / static_cast<uint32_t>(kernel.group) + 1;
  kernel.q_heads = args.q_heads;
  kernel.partial_columns = columns;
  kernel.window = args.window;
  kernel.scale_log2 = args.scale * kLog2E;
  kernel.history = args.history;
  kernel.ring = args.ring;
  kernel.append = args.append;
  const auto launch = args.kv_type == DType::kBF16 ? LaunchDecodeBf16 : LaunchDecodeE4m3;
  return launch(kernel, args.head_dim, columns, args.grid, stream);
}

}  // namespace tessera::kernels::cuda
