// The step path takes no memory from the heap unless a page becomes full.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "kvcache/kv_cache.h"
#include "tests/unit/kvcache/cache_fixture.h"

namespace {
std::atomic<uint64_t> heap_calls{0};
}  // namespace

// Out of line: inlined, GCC takes them for a mismatched pair of allocation functions.
[[gnu::noinline]] void* operator new(size_t bytes) {
  ++heap_calls;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace tessera::kvcache {
namespace {

TEST(SteadyState, GrowAndCommitWithinAPageAllocateNothing) {
  const auto cache = CacheOf(1 << 14);
  const auto layout = LayoutOf({1, 2, 3});
  const std::vector<TokenId> tokens = TokensOf(127);
  std::vector<SequenceCache> sequences;
  for (uint32_t i = 0; i < 512; ++i) {
    sequences.push_back(cache->Open({.layout = layout, .max_tokens = 256, .scope = TestDigest(i)}));
    ASSERT_TRUE(cache->Grow(sequences.back(), 65).ok());
    cache->Commit(sequences.back(), {tokens.data(), 64}, nullptr);
  }
  const uint64_t before = heap_calls;
  for (uint32_t length = 65; length < 128; ++length) {
    cache->Begin();
    for (SequenceCache& sequence : sequences) {
      ASSERT_TRUE(cache->Grow(sequence, length).ok());
    }
    cache->Keep();
    for (SequenceCache& sequence : sequences) {
      cache->Commit(sequence, {tokens.data(), length}, nullptr);
    }
    ASSERT_NE(cache->AvailableBytes(), 0u);
  }
  EXPECT_EQ(heap_calls - before, 0u);
  for (SequenceCache& sequence : sequences) {
    cache->Release(sequence);
  }
}

}  // namespace
}  // namespace tessera::kvcache
