// The merging loop that byte-pair models share: the pair of lowest rank first, of equals the
// leftmost.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera::server {

inline constexpr uint32_t kNoSymbol = std::numeric_limits<uint32_t>::max();
inline constexpr uint32_t kNoMerge = std::numeric_limits<uint32_t>::max();

// A run of the piece's bytes and the symbol that it is so far.
struct Symbol {
  uint32_t begin = 0;
  uint32_t length = 0;
  uint32_t id = kNoSymbol;
};

struct PairMerge {
  uint32_t rank = kNoMerge;
  uint32_t id = kNoSymbol;
};

namespace internal {

inline constexpr size_t kScanLimit = 40;

// Quadratic with a tiny constant: the fastest way for words.
template <typename Lookup>
void MergeByScan(const Lookup& lookup, std::vector<Symbol>* symbols) {
  size_t count = symbols->size();
  PairMerge merges[kScanLimit];
  Symbol* s = symbols->data();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = lookup(s[i], s[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoMerge) break;
    s[best].length += s[best + 1].length;
    s[best].id = merges[best].id;
    std::copy(s + best + 2, s + count, s + best + 1);
    if (best + 2 < count) {
      std::copy(merges + best + 2, merges + count - 1, merges + best + 1);
    }
    --count;
    if (best > 0) merges[best - 1] = lookup(s[best - 1], s[best]);
    if (best + 1 < count) merges[best] = lookup(s[best], s[best + 1]);
  }
  symbols->resize(count);
}

struct HeapEntry {
  uint32_t rank = 0;
  uint32_t left = 0;
  uint32_t right = 0;
  uint32_t id = 0;
  uint32_t left_bytes = 0;
  uint32_t right_bytes = 0;

  // The heap's top is its largest element.
  bool operator<(const HeapEntry& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

// n log n, for pieces of any length.
template <typename Lookup>
void MergeByHeap(const Lookup& lookup, std::vector<Symbol>* symbols) {
  const uint32_t count = static_cast<uint32_t>(symbols->size());
  std::vector<uint32_t> next(count), previous(count);
  std::vector<HeapEntry> heap;
  heap.reserve(count);
  Symbol* s = symbols->data();
  const auto entry = [&](uint32_t left, uint32_t right) {
    const PairMerge merge = lookup(s[left], s[right]);
    return HeapEntry{merge.rank, left, right, merge.id, s[left].length, s[right].length};
  };
  for (uint32_t i = 0; i < count; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
    if (i + 1 < count) {
      if (const HeapEntry e = entry(i, i + 1); e.rank != kNoMerge) heap.push_back(e);
    }
  }
  std::make_heap(heap.begin(), heap.end());
  const auto push = [&](uint32_t left, uint32_t right) {
    if (const HeapEntry e = entry(left, right); e.rank != kNoMerge) {
      heap.push_back(e);
      std::push_heap(heap.begin(), heap.end());
    }
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const HeapEntry e = heap.back();
    heap.pop_back();
    // A swallowed symbol has length 0; a grown one has another length.
    if (s[e.left].length != e.left_bytes || s[e.right].length != e.right_bytes) continue;
    s[e.left].length += s[e.right].length;
    s[e.left].id = e.id;
    s[e.right].length = 0;
    next[e.left] = next[e.right];
    if (next[e.left] < count) {
      previous[next[e.left]] = e.left;
      push(e.left, next[e.left]);
    }
    if (e.left > 0) push(previous[e.left], e.left);
  }
  std::erase_if(*symbols, [](const Symbol& symbol) { return symbol.length == 0; });
}

}  // namespace internal

// Merges `symbols` (each of at least one byte) until no pair merges.
// `lookup(left, right)` gives the PairMerge of two neighbours, with rank kNoMerge for none; it must
// depend on the bytes of the two symbols alone.
template <typename Lookup>
void MergeSymbols(const Lookup& lookup, std::vector<Symbol>* symbols) {
  if (symbols->size() < 2) return;
  if (symbols->size() <= internal::kScanLimit) {
    internal::MergeByScan(lookup, symbols);
  } else {
    internal::MergeByHeap(lookup, symbols);
  }
}

// U+2581, which SentencePiece writes for a space.
inline constexpr absl::string_view kSpaceMark = "\xE2\x96\x81";

// Whether `text` has the space mark behind another character. Where no token has, no merge crosses
// the start of a run of marks, so words can be merged one by one.
inline bool HasInnerSpaceMark(absl::string_view text) {
  while (text.substr(0, kSpaceMark.size()) == kSpaceMark) text.remove_prefix(kSpaceMark.size());
  return text.find(kSpaceMark) != text.npos;
}

// Calls `visit(begin, end)` for each part of `piece` that begins at the start of a run of `mark`.
template <typename Visit>
void ForEachMarkedWord(absl::string_view piece, absl::string_view mark, const Visit& visit) {
  size_t begin = 0;
  while (begin < piece.size()) {
    size_t run_end = begin;
    while (piece.substr(run_end, mark.size()) == mark) run_end += mark.size();
    const size_t end = std::min(piece.find(mark, std::max(run_end, begin + 1)), piece.size());
    visit(begin, end);
    begin = end;
  }
}

}  // namespace tessera::server
