#include <algorithm>
#include <cstring>

#include "kernels/cuda/attention/prefill.h"
#include "kernels/cuda/attention/prefill_plan.h"

namespace tessera::kernels::cuda {
namespace {

// Keys and values that may be in use at one time: part of the L2 cache, whose halves hold lines
// twice.
constexpr uint64_t kCachedBytes = uint64_t{24} << 20;
// Of a token's key and value of one KV head; an estimate for the order of work only.
constexpr uint64_t kTokenBytes = 512;

uint32_t TilesOf(int64_t queries, uint32_t group) {
  return static_cast<uint32_t>((queries * group + kPrefillTileRows - 1) / kPrefillTileRows);
}

int ComputeMajor() {
  static const int major = [] {
    int device = 0;
    int value = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, device);
    return value;
  }();
  return major;
}

// KV heads that are worked on together: as many as the cache holds, but enough that a group's
// longest item is a small part of what each multiprocessor has to do in it.
uint32_t HeadsTogether(std::span<const PrefillRow> rows, uint32_t kv_heads, uint64_t keys_of_head,
                       uint32_t multiprocessors, uint64_t longest) {
  uint64_t tokens = 0;
  for (const PrefillRow& row : rows) {
    if (row.q_rows > 0) tokens += static_cast<uint64_t>(row.position) + row.q_rows;
  }
  uint64_t heads =
      std::max<uint64_t>(1, kCachedBytes / std::max<uint64_t>(1, tokens * kTokenBytes));
  if (keys_of_head > 0) {
    heads = std::max(heads, (3 * multiprocessors * longest + keys_of_head - 1) / keys_of_head);
  }
  return static_cast<uint32_t>(std::min<uint64_t>(heads, kv_heads));
}

}  // namespace

size_t PrefillPlanBytes(size_t runs, size_t queries, uint32_t q_heads, uint32_t kv_heads) {
  // Each run may end in a tile that is not full.
  const size_t tiles = queries * (q_heads / kv_heads) / kPrefillTileRows + runs;
  return sizeof(PrefillPlanHeader) + runs * sizeof(PrefillPlanRun) +
         tiles * kv_heads * sizeof(PrefillPlanItem);
}

PrefillPlan BuildPrefillPlan(std::span<const PrefillRow> rows, uint32_t q_heads, uint32_t kv_heads,
                             uint32_t multiprocessors, std::byte* host_out) {
  const uint32_t group = q_heads / kv_heads;
  auto* header = reinterpret_cast<PrefillPlanHeader*>(host_out);
  auto* runs = reinterpret_cast<PrefillPlanRun*>(header + 1);
  auto* items = reinterpret_cast<PrefillPlanItem*>(runs + rows.size());
  size_t tiles = 0;
  for (const PrefillRow& row : rows) tiles += TilesOf(row.q_rows, group);

  // Tiles are sorted where the last head's items will lie; that part is written last, and each tile
  // is read before its place is.
  PrefillPlanItem* sorted = items + tiles * (kv_heads - 1);
  PrefillPlanItem* end = sorted;
  uint64_t keys_of_head = 0;
  for (uint32_t r = 0; r < rows.size(); ++r) {
    const PrefillRow& row = rows[r];
    runs[r] = {row.page_table, row.table_stride, row.q_begin, row.q_rows, row.position};
    for (uint32_t tile = 0; tile < TilesOf(row.q_rows, group); ++tile) {
      const uint32_t last =
          std::min<uint32_t>((tile + 1) * kPrefillTileRows - 1, row.q_rows * group - 1);
      const uint32_t keys = row.position + last / group + 1;
      *end++ = {r, tile, 0, keys};
      keys_of_head += keys;
    }
  }
  std::sort(sorted, end, [](const PrefillPlanItem& a, const PrefillPlanItem& b) {
    return a.keys != b.keys ? a.keys > b.keys : a.run != b.run ? a.run < b.run : a.tile > b.tile;
  });

  const uint64_t longest = tiles > 0 ? sorted->keys : 0;
  const uint32_t together = HeadsTogether(rows, kv_heads, keys_of_head, multiprocessors, longest);
  PrefillPlanItem* next = items;
  for (uint32_t first = 0; first < kv_heads; first += together) {
    const uint32_t past = std::min(first + together, kv_heads);
    for (size_t i = 0; i < tiles; ++i) {
      PrefillPlanItem item = sorted[i];
      for (item.kv_head = first; item.kv_head < past; ++item.kv_head) *next++ = item;
    }
  }
  header->items = static_cast<uint32_t>(next - items);
  header->items_offset = static_cast<uint32_t>(reinterpret_cast<std::byte*>(items) - host_out);
  header->next = 0;
  header->done = 0;
  return {header->items, header->items_offset + header->items * sizeof(PrefillPlanItem)};
}

std::string MissingPrefill(const PrefillArgs& args) {
  if (ComputeMajor() < 8) return "compute capability 8.0";
  switch (args.head_dim) {
    case 64:
    case 80:
    case 96:
    case 128:
    case 256:
      break;
    default:
      return "head_dim " + std::to_string(args.head_dim);
  }
  if (args.kv_dtype != DType::kBF16 && args.kv_dtype != DType::kF8E4M3) {
    return "key and value type " + std::to_string(static_cast<int>(args.kv_dtype));
  }
  if (args.kv_heads == 0 || args.q_heads % args.kv_heads != 0 ||
      args.q_heads / args.kv_heads > 128) {
    return std::to_string(args.q_heads) + " query heads over " + std::to_string(args.kv_heads) +
           " KV heads";
  }
  if (!(args.scale > 0) || args.scale > 3e38f) return "scale that is not positive and finite";
  if (args.window < 0) return "window below 0";
  if (args.q_stride % 8 != 0) return "a q_stride that is no multiple of 8";
  return "";
}

cudaError_t LaunchPrefill(const PrefillArgs& args, cudaStream_t stream) {
  if (ComputeMajor() == 9 && args.kv_dtype == DType::kBF16) return LaunchPrefillWgmma(args, stream);
  return LaunchPrefillMma(args, stream);
}

}  // namespace tessera::kernels::cuda
