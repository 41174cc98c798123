// Host time of the cache on the step path: 512 sequences of 30 tables, one token a step each.
//
// Prints nanoseconds a sequence and step for Grow + Commit: within a page, at a page's end (30
// pages taken, sealed and published), and for Open of a 16-page prefix hit with its Release.
#include <chrono>
#include <cstdio>
#include <memory>
#include <vector>

#include "kvcache/kv_cache.h"

namespace {

using tessera::kvcache::CacheLayout;
using tessera::kvcache::KvCache;
using tessera::kvcache::SequenceCache;

constexpr uint32_t kSequences = 512;
constexpr uint32_t kTables = 30;
constexpr uint32_t kTokens = 1024;

double NowNs() {
  return std::chrono::duration<double, std::nano>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::shared_ptr<const CacheLayout> Layout() {
  auto layout = std::make_shared<CacheLayout>();
  for (uint32_t i = 0; i < kTables; ++i) {
    layout->tables.push_back(
        {{tessera::kvcache::StateKind::kPaged,
          {.dtype = tessera::kernels::DType::kF16, .kv_heads = 3, .head_dim = 64}},
         tessera::Hasher().AddU64(i).Finish()});
  }
  return layout;
}

void Step(KvCache& cache, std::vector<SequenceCache>& sequences,
          const std::vector<std::vector<tessera::TokenId>>& tokens, uint32_t length) {
  cache.Begin();
  for (SequenceCache& sequence : sequences) {
    if (!cache.Grow(sequence, length).ok()) {
      std::fprintf(stderr, "the cache is too small\n");
      std::exit(1);
    }
  }
  cache.Keep();
  for (uint32_t i = 0; i < kSequences; ++i) {
    cache.Commit(sequences[i], {tokens[i].data(), length}, nullptr);
  }
}

}  // namespace

int main() {
  auto cache = KvCache::Create({.arena_bytes = uint64_t{20} << 30}).value();
  const auto layout = Layout();
  std::vector<SequenceCache> sequences;
  std::vector<std::vector<tessera::TokenId>> tokens;
  for (uint32_t i = 0; i < kSequences; ++i) {
    tokens.emplace_back(kTokens, i);
    sequences.push_back(cache->Open({.layout = layout, .max_tokens = kTokens}));
  }
  double within = 0;
  double boundary = 0;
  for (uint32_t length = 1; length <= kTokens; ++length) {
    const double start = NowNs();
    Step(*cache, sequences, tokens, length);
    // A page is taken at its first token and sealed at its last.
    (length % 64 < 2 ? boundary : within) += NowNs() - start;
  }
  const double boundaries = kTokens / 64.0;
  std::printf("grow+commit within a page: %.1f ns a sequence and step\n",
              within / ((kTokens - 2 * boundaries) * kSequences));
  std::printf("page of %u tables taken, sealed and published: %.0f ns\n", kTables,
              boundary / (boundaries * kSequences));
  double open = 0;
  constexpr int kOpens = 1000;
  for (int i = 0; i < kOpens; ++i) {
    const double start = NowNs();
    SequenceCache probe = cache->Open({.layout = layout,
                                       .max_tokens = kTokens,
                                       .tokens = tokens[i % kSequences],
                                       .max_reused_tokens = kTokens});
    cache->Release(probe);
    open += NowNs() - start;
  }
  std::printf("open and release with %u tokens found: %.0f ns\n", kTokens, open / kOpens);
  for (SequenceCache& sequence : sequences) {
    cache->Release(sequence);
  }
  return 0;
}
