// What the cache's tests share: digests, layouts and tokens made from small numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kvcache/kv_cache.h"

namespace tessera::kvcache {

inline Digest TestDigest(uint64_t value) { return Hasher().AddU64(value).Finish(); }

// A format whose pages have 512 * `units` bytes: float32, one head.
inline kernels::KvFormat FormatOf(uint32_t units) {
  return {.dtype = kernels::DType::kF32, .kv_heads = 1, .head_dim = units};
}

// One table a state, all with pages of 512 * `units` bytes.
inline std::shared_ptr<CacheLayout> LayoutOf(const std::vector<uint64_t>& states,
                                             uint32_t units = 1) {
  auto layout = std::make_shared<CacheLayout>();
  for (const uint64_t state : states) {
    layout->tables.push_back({{StateKind::kPaged, FormatOf(units)}, TestDigest(state)});
  }
  return layout;
}

// `count` tokens that depend on their position and on `salt`.
inline std::vector<TokenId> TokensOf(size_t count, uint32_t salt = 0) {
  std::vector<TokenId> tokens(count);
  for (size_t i = 0; i < count; ++i) {
    tokens[i] = static_cast<TokenId>(i * 7 + salt * 100003);
  }
  return tokens;
}

// A cache that holds `pages` pages of 512 bytes (a multiple of 8: a slab has 8 of them).
inline std::unique_ptr<KvCache> CacheOf(uint64_t pages) {
  return KvCache::Create({.arena_bytes = pages * 512, .slab_bytes = 4096}).value();
}

}  // namespace tessera::kvcache
