#include "kvcache/state_spec.h"

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace tessera::kvcache {

uint64_t CacheLayout::BytesFor(uint64_t tokens) const {
  const uint64_t pages = tokens / kernels::kPageTokens + (tokens % kernels::kPageTokens != 0);
  uint64_t row = 0;
  for (const TableSpec& table : tables) {
    row += table.state.format.page_bytes();
  }
  uint64_t bytes = 0;
  return __builtin_mul_overflow(pages, row, &bytes) ? UINT64_MAX : bytes;
}

Status CacheLayout::Validate() const {
  absl::flat_hash_map<Digest, size_t> seen;
  for (size_t i = 0; i < tables.size(); ++i) {
    const std::string where = absl::StrCat("table ", i);
    if (tables[i].state.format.page_bytes() == 0) {
      return Error(absl::StatusCode::kInvalidArgument,
                   {.what = "a cache table keeps nothing",
                    .where = where,
                    .why = "kv_heads or head_dim is 0",
                    .fix = "declare state only for blocks that keep some"});
    }
    const auto [first, added] = seen.emplace(tables[i].state_digest, i);
    if (!added) {
      return Error(absl::StatusCode::kInvalidArgument,
                   {.what = "two cache tables have one state digest",
                    .where = where,
                    .why = absl::StrCat("table ", first->second, " has it too"),
                    .fix = "state digests are cumulative and include the head group"});
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::kvcache
