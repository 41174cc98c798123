#include "kernels/op_profile.h"

#include <algorithm>
#include <chrono>

namespace tessera::kernels {

OpWork WorkOf(const LinearOp::Desc& desc, const LinearOp::Params& params) {
  OpWork work;
  const DTypeInfo& type = InfoOf(desc.weight);
  for (const LinearTask& task : params.tasks) {
    if (task.row_count == 0) continue;
    const uint64_t elements = static_cast<uint64_t>(task.out) * static_cast<uint64_t>(params.in) *
                              (task.up != nullptr ? 2 : 1);
    work.bytes += elements / type.block_elements * type.block_bytes;
    work.ops += 2 * elements * static_cast<uint64_t>(task.row_count);
  }
  return work;
}

OpWork WorkOf(const AttentionOp::Desc& desc, const AttentionOp::Params& params) {
  OpWork work;
  const DTypeInfo& type = InfoOf(desc.kv.dtype);
  const auto width = static_cast<uint64_t>(desc.kv.head_dim);
  const uint64_t token_bytes = 2 * width / type.block_elements * type.block_bytes;
  for (const AttentionRow& row : params.plan.rows) {
    const bool all = row.kv_head == AttentionRow::kAllKvHeads;
    const uint64_t kv_heads = all ? static_cast<uint64_t>(desc.kv.kv_heads) : 1;
    const uint64_t q_heads = static_cast<uint64_t>(params.q_heads) / (all ? 1 : desc.kv.kv_heads);
    const auto queries = static_cast<uint64_t>(row.q_rows);
    uint64_t seen = 0;  // tokens that all queries together see
    uint64_t read = static_cast<uint64_t>(row.position) + queries;
    if (!row.entries.empty()) {
      read = row.entries.size() * kPageTokens;
      seen = read * queries;
    } else {
      const uint64_t window = params.window > 0 ? static_cast<uint64_t>(params.window) : UINT64_MAX;
      for (uint64_t q = 0; q < queries; ++q) {
        seen += std::min(static_cast<uint64_t>(row.position) + q + 1, window);
      }
      if (window < UINT64_MAX) read = std::min(read, window + queries - 1);
    }
    work.bytes += read * kv_heads * token_bytes;
    work.ops += 4 * seen * q_heads * width;
  }
  return work;
}

uint64_t OpProfile::Now() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

void OpProfile::Add(const char* op, std::string what, uint64_t begin_ns, uint64_t end_ns,
                    const OpWork& work) {
  const auto same = [&](const Line& line) { return line.what == what && line.op == op; };
  auto line = std::find_if(lines_.begin(), lines_.end(), same);
  if (line == lines_.end()) {
    lines_.push_back({.op = op, .what = std::move(what)});
    line = lines_.end() - 1;
  }
  ++line->calls;
  line->ns += end_ns - begin_ns;
  line->work.bytes += work.bytes;
  line->work.ops += work.ops;
  own_ns_ += Now() - end_ns;
}

std::vector<OpProfile::Line> OpProfile::Sorted() const {
  std::vector<Line> sorted = lines_;
  std::sort(sorted.begin(), sorted.end(), [](const Line& a, const Line& b) { return a.ns > b.ns; });
  return sorted;
}

}  // namespace tessera::kernels
