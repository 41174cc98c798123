// Finding a place in the falling order of a whole row without sorting it: by histograms that narrow
// a range of keys until one block can sort what is left. Device code.
#pragma once

#include <cstdint>

#include "kernels/cuda/ops/sample_list.cuh"

namespace tessera::kernels::cuda {

// Appends a key to this block's list; counts on where it is full.
__device__ __forceinline__ void AppendKey(RowState& s, uint64_t key) {
  const int at = atomicAdd(&s.list_count, 1);
  if (at < kListSize) s.keys[at] = key;
}
__device__ __forceinline__ void ClearList(RowState& s) {
  if (threadIdx.x == 0) s.list_count = 0;
  __syncthreads();
}
// Block 0 only: the lists of all blocks, whose lengths are Tally::n of the last reduction and at
// most kListSize together, into its own, sorted. The other blocks' lists must stay until the next
// reduction. Gives the length.
template <int kTeam>
__device__ __noinline__ int PullLists(RowState& s) {
  // Warps take the other blocks in turn, so that their reads are under way together.
  const Tally* parts = s.slots[s.turn ^ 1];
  const int mine = static_cast<int>(threadIdx.x) / 32 % kTeam;
  int count = 0;
  for (int r = 0; r < kTeam; ++r) {
    const int part = static_cast<int>(parts[r].n);
    if (r > 0 && r == mine) {
      const uint64_t* from = Remote<kTeam>(s.keys, r);
      const int first = static_cast<int>(threadIdx.x) / 32 / kTeam * 32 + LaneId();
      for (int i = first; i < part; i += kSampleThreads / kTeam) s.keys[count + i] = from[i];
    }
    count += part;
  }
  __syncthreads();
  SortKeys(s.keys, count);
  return count;
}

// The best tokens of the row, by a guess that costs no histogram: all that are no worse than a key
// which enough threads' best tokens reach. At least `wanted` unless there are fewer, and seldom
// more than a few times as many. Fills the blocks' lists. `best` is this thread's best value, one
// that was removed since does no harm.
struct TopTokens {
  int listed = 0;   // more than kListSize: the lists are not whole
  int members = 0;  // tokens that remain in the row
};
template <int kTeam>
__device__ __noinline__ TopTokens CollectTop(RowState& s, float best, int wanted) {
  const uint32_t own = static_cast<uint32_t>(TokenKey(best, 0) >> 32);
  const int share = (wanted + kTeam - 1) / kTeam;
  uint32_t bound = 0;
  for (uint32_t bit = 1u << 31; bit >= 1u << 12; bit >>= 1) {
    if (__syncthreads_count(own >= (bound | bit)) >= share) bound |= bit;
  }
  ClearList(s);
  Tally tally;
  tally.low = static_cast<uint64_t>(bound) << 32;
  const uint64_t low = AllReduce<kTeam, kLow>(s, tally).low;
  ForEachMember<kTeam>(s, [&](int i, float value) {
    const uint64_t key = TokenKey(value, static_cast<uint32_t>(s.first + i));
    ++tally.m;
    if (key < low) return;
    ++tally.n;
    AppendKey(s, key);
  });
  tally = AllReduce<kTeam, kM | kN>(s, tally);
  return {static_cast<int>(tally.n), static_cast<int>(tally.m)};
}

// Tokens are counted, or weighed.
enum class Measure : uint8_t { kCount, kMass };

struct Wanted {
  Measure measure;
  bool strict;       // the measure must exceed the target, not only reach it
  bool whole_list;   // list all tokens down to the place, not only its neighbours
  double target;     // at least 1 when counting, and no more than there are tokens
  double total;      // measure of all tokens
  uint64_t low = 0;  // the place lies in [low, high]; high 0: anywhere
  uint64_t high = 0;
};

// The first token, in falling order, at which the measure reaches the target; the last if none.
struct Selected {
  uint64_t key = 0;
  double mass = 0;  // measure up to and including it
};

// Keys [low, high] that hold the wanted place, cut into kBins, the best first.
struct KeyRange {
  uint64_t low;
  uint64_t high;
  float top;     // cut by score from here, which spreads logits evenly; then by key
  float factor;  // bins a unit of score
  int shift;     // -1: by score

  __device__ __forceinline__ int Bin(uint64_t key, float score) const {
    if (shift < 0) {
      const float at = fminf((top - score) * factor, kBins - 1.0f);
      return static_cast<int>(__float_as_uint(at + kRounder) & (2 * kBins - 1));
    }
    return static_cast<int>((high - key) >> shift);
  }
  __device__ __forceinline__ bool Has(uint64_t key) const { return key >= low && key <= high; }
  __device__ __forceinline__ void CutByKey() {
    shift = max(0, 64 - __clzll(static_cast<long long>(high - low)) - 11);
  }
  __device__ __forceinline__ void CutByScore() {
    top = KeyScore(high);
    const float span = top - KeyScore(low);
    factor = span > 0 ? kBins / span : 0.0f;
    shift = -1;
    if (!(factor > 0) || factor > kLargestFloat) CutByKey();
  }
};

// Where this block keeps the bins that it has merged for the team.
template <int kTeam>
__device__ __forceinline__ uint32_t* MergedBins(RowState& s) {
  return kTeam > 1 ? s.merged : s.hist;
}

// Each block merges its share of the bins of all blocks. The last reduction is then that of the
// shares' sums.
template <int kTeam>
__device__ __noinline__ void MergeBins(RowState& s) {
  constexpr int kShare = kBins / kTeam;
  TeamSync<kTeam>();
  Tally tally;
  if constexpr (kTeam > 1) {
    static_assert(kShare <= kSampleThreads);
    if (threadIdx.x < kShare) {
      uint32_t sum = 0;
#pragma unroll
      for (int r = 0; r < kTeam; ++r) {
        sum += Remote<kTeam>(s.hist, r)[s.rank * kShare + threadIdx.x];
      }
      s.merged[threadIdx.x] = sum;
      tally.n = sum;
    }
  } else {
    for (int i = threadIdx.x; i < kShare; i += kSampleThreads) tally.n += s.hist[i];
  }
  tally = AllReduce<kTeam, kN>(s, tally);
  // Kept apart from the reductions that follow.
  if (threadIdx.x < kTeam) s.share[threadIdx.x] = s.slots[s.turn ^ 1][threadIdx.x].n;
  __syncthreads();
}

// The bin in which the merged histogram reaches `target`, or the last that is not empty.
template <int kTeam>
__device__ __noinline__ int ReachingBin(RowState& s, uint32_t target) {
  constexpr int kShare = kBins / kTeam;
  constexpr int kPerLane = kShare / 32;
  if (threadIdx.x < 32) {
    uint32_t before = 0, passed = 0;
    int owner = 0;
    for (int r = 0; r < kTeam; ++r) {
      if (s.share[r] == 0) continue;
      owner = r;
      before = passed;
      passed += s.share[r];
      if (passed >= target) break;
    }
    const uint32_t* bins = Remote<kTeam>(MergedBins<kTeam>(s), owner) + LaneId() * kPerLane;
    uint32_t own = 0;
    for (int i = 0; i < kPerLane; ++i) own += bins[i];
    uint32_t scan = own;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const uint32_t lower = __shfl_up_sync(0xffffffffu, scan, offset);
      if (LaneId() >= offset) scan += lower;
    }
    const unsigned reached = __ballot_sync(0xffffffffu, own > 0 && before + scan >= target);
    const unsigned filled = __ballot_sync(0xffffffffu, own > 0);
    const int lane = reached != 0 ? __ffs(static_cast<int>(reached)) - 1 : 31 - __clz(filled);
    if (LaneId() == lane) {
      uint32_t sum = before + scan - own;
      int bin = 0;
      for (int i = 0; i < kPerLane && sum < target; ++i) {
        if (bins[i] == 0) continue;
        bin = i;
        sum += bins[i];
      }
      s.cross = owner * kShare + lane * kPerLane + bin;
    }
  }
  __syncthreads();
  return s.cross;
}

template <int kTeam, bool kTypical>
class Selector {
 public:
  __device__ Selector(RowState& s, const Wanted& wanted)
      : s_(s), wanted_(wanted), max_(s.max), inverse_(s.inverse) {}

  __device__ Selected Run() {
    inside_mass_ = wanted_.total;
    if (wanted_.high != 0) {
      range_.low = wanted_.low;
      range_.high = wanted_.high;
      inside_ = kUnknown;
    } else {
      FindRange();
    }
    range_.CutByScore();
    return Search();
  }

  // Another place in the same range, for which the first histogram often serves again. `total` is
  // as it was.
  __device__ Selected Again(double target, bool strict) {
    wanted_.target = target;
    wanted_.strict = strict;
    mass_ = 0;
    above_ = 0;
    inside_ = kUnknown;
    inside_mass_ = wanted_.total;
    if (cuts_ == 1) {
      range_ = first_range_;
      Choose(first_scale_);
    } else {
      range_ = {wanted_.low, wanted_.high, 0, 0, 0};
      range_.CutByScore();
    }
    return Search();
  }

 private:
  static constexpr uint32_t kUnknown = 1u << 30;

  __device__ __forceinline__ Selected Search() {
    while (inside_ > kListSize || (wanted_.whole_list && above_ + inside_ > kListSize)) Narrow();
    return Finish();
  }

  // Use(key, score, value) of this thread's tokens in [low, high].
  template <typename Use>
  __device__ __forceinline__ void ForEachInside(uint64_t low, uint64_t high, Use use) {
    ForEachMember<kTeam>(s_, [&](int i, float value) {
      const float score = kTypical ? TypicalScore(Weight(value), s_.total, s_.entropy) : value;
      const uint64_t key = TokenKey(score, static_cast<uint32_t>(s_.first + i));
      if (key >= low && key <= high) use(key, score, value);
    });
  }
  __device__ __forceinline__ float Weight(float value) const {
    return LogitWeight(value, max_, inverse_);
  }
  __device__ __forceinline__ bool Counts() const { return wanted_.measure == Measure::kCount; }
  __device__ __forceinline__ bool Reaches(double mass) const {
    return wanted_.strict ? mass > wanted_.target : mass >= wanted_.target;
  }

  __device__ __forceinline__ void FindRange() {
    Tally tally;
    ForEachInside(0, kNoKey, [&](uint64_t key, float, float) {
      tally.high = max(tally.high, key);
      tally.low = min(tally.low, key);
      ++tally.n;
    });
    tally = AllReduce<kTeam, kHigh | kLow | kN>(s_, tally);
    range_.high = tally.high;
    range_.low = tally.low;
    inside_ = tally.n;
  }

  // One step of the search: cuts the range into bins and keeps the bin that holds the place, or
  // what lies on the side of it where exact sums say that it is.
  __device__ __forceinline__ void Narrow() {
    const float scale =
        Counts() ? 1.0f : static_cast<float>(fmin(0x1p30 / fmax(inside_mass_, 1e-30), 1e37));
    for (int i = threadIdx.x; i < kBins; i += kSampleThreads) s_.hist[i] = 0;
    __syncthreads();
    const KeyRange range = range_;
    ForEachInside(range.low, range.high, [&](uint64_t key, float score, float value) {
      const float amount = Counts() ? 1.0f : Weight(value) * scale;
      atomicAdd(&s_.hist[range.Bin(key, score)], max(1u, __float2uint_rn(amount)));
    });
    MergeBins<kTeam>(s_);
    if (cuts_++ == 0) {
      first_range_ = range;
      first_scale_ = scale;
    }
    Choose(scale);
  }

  // Keeps the bin that the merged histogram names, if exact sums agree.
  __device__ __forceinline__ void Choose(float scale) {
    const KeyRange range = range_;
    const double want = ceil((wanted_.target - mass_) * static_cast<double>(scale));
    const int bin =
        ReachingBin<kTeam>(s_, static_cast<uint32_t>(fmin(fmax(want, 1.0), 4294967295.0)));
    ClearList(s_);
    Tally tally;
    ForEachInside(range.low, range.high, [&](uint64_t key, float score, float value) {
      const int at = range.Bin(key, score);
      if (at > bin) {
        tally.floor = 0;
        return;
      }
      const double amount = Counts() ? 1.0 : static_cast<double>(Weight(value));
      if (at < bin) {
        tally.a += amount;
        ++tally.m;
        return;
      }
      tally.b += amount;
      ++tally.n;
      tally.high = max(tally.high, key);
      tally.low = min(tally.low, key);
      AppendKey(s_, key);
    });
    Keep(AllReduce<kTeam, kA | kB | kHigh | kLow | kFloor | kM | kN>(s_, tally));
  }

  __device__ __forceinline__ void Keep(const Tally& t) {
    listed_ = false;
    if (t.m > 0 && Reaches(mass_ + t.a)) {
      range_.low = t.high + 1;
      inside_ = t.m;
      inside_mass_ = t.a;
    } else if (Reaches(mass_ + t.a + t.b) || t.floor != 0) {
      mass_ += t.a;
      above_ += t.m;
      inside_ = t.n;
      inside_mass_ = t.b;
      range_.low = t.low;
      range_.high = t.high;
      listed_ = !wanted_.whole_list && t.n <= kListSize;
    } else {
      mass_ += t.a + t.b;
      above_ += t.m + t.n;
      range_.high = t.low - 1;
      inside_ = kUnknown;
      inside_mass_ -= t.a + t.b;
    }
    range_.CutByKey();
  }

  // Block 0 sorts what is left and finds the place.
  __device__ __forceinline__ Selected Finish() {
    if (!listed_) {
      ClearList(s_);
      Tally tally;
      ForEachInside(range_.low, wanted_.whole_list ? kNoKey : range_.high,
                    [&](uint64_t key, float, float) {
                      ++tally.n;
                      AppendKey(s_, key);
                    });
      AllReduce<kTeam, kN>(s_, tally);
    }
    Tally tally;
    if (s_.rank == 0) {
      const double base = wanted_.whole_list ? 0.0 : mass_;
      const int count = PullLists<kTeam>(s_);
      int place = static_cast<int>(wanted_.target - base) - 1;
      double mass = wanted_.target;
      if (!Counts()) {
        WeighSelected(count);
        place = FirstReaching(s_, s_.weights, count, base, wanted_.target, wanted_.strict, &mass);
      }
      if (threadIdx.x == 0) {
        tally.a = mass;
        tally.high = s_.keys[min(place, count - 1)];
      }
    }
    tally = AllReduce<kTeam, kA | kHigh>(s_, tally);
    return {tally.high, tally.a};
  }

  __device__ __forceinline__ void WeighSelected(int count) {
    for (int i = threadIdx.x; i < count; i += kSampleThreads) {
      float value = KeyScore(s_.keys[i]);
      if constexpr (kTypical) {
        const int id = static_cast<int>(KeyId(s_.keys[i]));
        value = *(Remote<kTeam>(s_.values, id / s_.per_block) + id % s_.per_block);
      }
      s_.weights[i] = Weight(value);
    }
    __syncthreads();
  }

  RowState& s_;
  Wanted wanted_;
  const float max_;
  const float inverse_;
  KeyRange first_range_;  // of the first histogram, and its units a measure
  float first_scale_ = 0;
  int cuts_ = 0;  // histograms made
  KeyRange range_;
  double mass_ = 0;         // measure of the tokens above the range
  uint32_t above_ = 0;      // how many they are
  bool listed_ = false;     // the blocks' lists hold the range
  uint32_t inside_ = 0;     // tokens in the range, or more
  double inside_mass_ = 0;  // their measure, about
};

template <int kTeam, bool kTypical>
__device__ __noinline__ Selected Select(RowState& s, const Wanted& wanted) {
  return Selector<kTeam, kTypical>(s, wanted).Run();
}

}  // namespace tessera::kernels::cuda
