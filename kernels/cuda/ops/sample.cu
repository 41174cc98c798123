#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops/sample.h"
#include "kernels/cuda/ops/sample_change.cuh"
#include "kernels/cuda/ops/sample_select.cuh"

namespace tessera::kernels::cuda {
namespace {

// The mass-weighted draw in order of ids, by the sums that the last Weigh left.
template <int kTeam>
__device__ __noinline__ uint32_t DrawById(RowState& s, double total, uint32_t otherwise) {
  const double target = s.row.uniform * total;
  double before = 0;
  int owner = 0;
  while (owner < kTeam && before + s.slots[s.turn ^ 1][owner].a <= target) {
    before += s.slots[s.turn ^ 1][owner++].a;
  }
  Tally tally;
  if (owner == s.rank && threadIdx.x < 32) {
    const int id = s.first + DrawInSlice(s, before, target);
    if (LaneId() == 0) tally.high = static_cast<uint64_t>(id) + 1;
  }
  tally = AllReduce<kTeam, kHigh>(s, tally);
  return tally.high > 0 ? static_cast<uint32_t>(tally.high - 1) : otherwise;
}

// True when the tokens that reach `bound` are exactly `wanted` and no two are of one chunk of ids:
// then the CPU's first selection has them already, in order of ids.
template <int kTeam>
__device__ __noinline__ bool SelectedById(RowState& s, float bound, uint32_t wanted) {
  Tally tally;
  for (int i = threadIdx.x; i < s.count; i += kSampleThreads) {
    const unsigned reach = __ballot_sync(0xffffffffu, s.values[i] >= bound);
    if (LaneId() == 0) s.chunk_sum[i / kSampleChunk] = 0;
    if (LaneId() == 0) tally.n += __popc(reach);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < s.count; i += kSampleThreads) {
    if (s.values[i] >= bound) atomicAdd(&s.chunk_sum[i / kSampleChunk], 1.0f);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < s.count / kSampleChunk; i += kSampleThreads) {
    if (s.chunk_sum[i] > 1.0f) tally.m = 1;
  }
  tally = AllReduce<kTeam, kM | kN>(s, tally);
  return tally.n == wanted && tally.m == 0;
}

// What typical_p leaves of the row.
template <int kTeam>
__device__ __noinline__ void RestrictToTypical(RowState& s) {
  const double total = Weigh<kTeam>(s);
  Tally tally;
  ForEachMember<kTeam>(s, [&](int, float value) {
    const double p = static_cast<double>(WeightOf(s, value)) / total;
    if (p > 0) tally.a -= p * log(p);
  });
  tally = AllReduce<kTeam, kA>(s, tally);
  if (threadIdx.x == 0) {
    s.total = total;
    s.entropy = tally.a;
  }
  __syncthreads();
  const double target = static_cast<double>(s.row.typical_p) * total;
  const Selected selected = Select<kTeam, true>(s, {Measure::kMass, false, false, target, total});
  Restrict<kTeam>(s, [&](int i, float value) {
    return TokenKey(ScoreOf<true>(s, value), static_cast<uint32_t>(s.first + i)) >= selected.key;
  });
}

// What block 0 alone knows, to all.
template <int kTeam>
__device__ __forceinline__ uint32_t FromBlock0(RowState& s, uint32_t value) {
  Tally tally;
  if (s.rank == 0) tally.high = value;
  return static_cast<uint32_t>(AllReduce<kTeam, kHigh>(s, tally).high);
}

// Block 0 only: the draw after top_k from the lists, which hold as many.
template <int kTeam>
__device__ __noinline__ uint32_t DrawFromTop(RowState& s, const TopTokens& top) {
  const int count = PullLists<kTeam>(s);
  const int kept = min(count, static_cast<int>(s.row.top_k));
  const bool by_id = s.row.top_p >= 1.0f && (top.members <= kept || OnePerChunk(s, count, kept));
  return FinishList(s, kept, by_id);
}

// top_k where the tokens are too many for a list. True when the CPU has them in order of ids.
template <int kTeam>
__device__ __noinline__ bool RestrictToTop(RowState& s) {
  Tally tally;
  ForEachMember<kTeam>(s, [&](int, float) { ++tally.n; });
  if (AllReduce<kTeam, kN>(s, tally).n <= s.row.top_k) return true;
  const double wanted = static_cast<double>(s.row.top_k);
  const Selected last = Select<kTeam, false>(s, {Measure::kCount, false, false, wanted, 0});
  const bool by_id = SelectedById<kTeam>(s, KeyScore(last.key), s.row.top_k);
  Restrict<kTeam>(s, [&](int i, float value) {
    return TokenKey(value, static_cast<uint32_t>(s.first + i)) >= last.key;
  });
  return by_id;
}

// The draw from a nucleus that weighs at least top_p of `total`, in falling order.
template <int kTeam>
__device__ __noinline__ uint32_t DrawFromNucleus(RowState& s, double total, float best) {
  constexpr int kGuess = 128;
  const double target = static_cast<double>(s.row.top_p) * total;
  // No token weighs more than 1: a large mass lies in more tokens than a guess would list.
  if (target < kGuess / 4) {
    const TopTokens top = CollectTop<kTeam>(s, best, kGuess);
    if (top.listed <= kListSize) {
      uint32_t found = 0;
      if (s.rank == 0) {
        const int count = PullLists<kTeam>(s);
        found = NucleusOfList(s, count, total, count == top.members);
      }
      found = FromBlock0<kTeam>(s, found);
      if (found != 0) return found - 1;
    }
  }
  const uint64_t high = TokenKey(s.max, 0);
  // Tokens below this weigh less than the rest that the nucleus leaves.
  const double rest = 0.5 * (1.0 - static_cast<double>(s.row.top_p)) * total / kMaxSampleVocab;
  const float floor = s.max + static_cast<float>(log(rest)) / s.inverse;
  const uint64_t low = TokenKey(fminf(floor, s.max), ~0u);
  Selector<kTeam, false> selector(s, {Measure::kMass, false, false, target, total, low, high});
  const double kept = selector.Run().mass;
  return KeyId(selector.Again(s.row.uniform * kept, true).key);
}

// Filters and draw; `s.max` is finite. `best` is this thread's best value.
template <int kTeam>
__device__ uint32_t Draw(RowState& s, int32_t vocab, uint32_t argmax, float best) {
  if (s.row.has_min_p != 0) {
    const float bound = fminf(fmaxf(-kLargestFloat, __fadd_rn(s.max, s.row.min_p_offset)), s.max);
    Restrict<kTeam>(s, [&](int, float value) { return value >= bound; });
  }
  bool by_id = true;
  if (s.row.top_k > 0 && s.row.top_k < static_cast<uint32_t>(vocab)) {
    if (s.row.top_k <= kListSize / 2) {
      const TopTokens top = CollectTop<kTeam>(s, best, static_cast<int>(s.row.top_k));
      if (top.listed <= kListSize) {
        return FromBlock0<kTeam>(s, s.rank == 0 ? DrawFromTop<kTeam>(s, top) : 0);
      }
    }
    by_id = RestrictToTop<kTeam>(s);
  }
  if (s.row.typical_p < 1.0f) RestrictToTypical<kTeam>(s);
  const double total = Weigh<kTeam>(s);
  if (s.row.top_p < 1.0f) return DrawFromNucleus<kTeam>(s, total, best);
  if (by_id) return DrawById<kTeam>(s, total, argmax);
  const double target = s.row.uniform * total;
  return KeyId(Select<kTeam, false>(s, {Measure::kMass, true, false, target, total}).key);
}

// Maximum of what remains, with its lowest id; this thread's best value.
template <int kTeam>
__device__ __noinline__ uint64_t Best(RowState& s, float* best) {
  Tally tally;
  for (int i = threadIdx.x; i < s.count; i += kSampleThreads) {
    tally.high = max(tally.high, TokenKey(s.values[i], static_cast<uint32_t>(s.first + i)));
  }
  *best = tally.high != 0 ? KeyScore(tally.high) : NegativeInfinity();
  return AllReduce<kTeam, kHigh>(s, tally).high;
}

__device__ __forceinline__ void SetWeighing(RowState& s, float max, float inverse) {
  if (threadIdx.x == 0) {
    s.max = max;
    s.inverse = inverse;
  }
  __syncthreads();
}

template <int kTeam>
__device__ uint32_t Choose(RowState& s, int32_t vocab, const int32_t* last_token, uint64_t best,
                           float own_best) {
  if (s.row.changed != 0) {
    ChangeLogits(s, last_token);
    best = Best<kTeam>(s, &own_best);
  }
  const float max = KeyScore(best);
  if (max == NegativeInfinity()) return s.row.first_allowed;
  if (s.row.temperature < kGreedyTemperature) return KeyId(best);
  SetWeighing(s, max, s.row.inverse_temperature);
  const bool filtered = (s.row.top_k > 0 && s.row.top_k < static_cast<uint32_t>(vocab)) ||
                        s.row.top_p < 1.0f || s.row.typical_p < 1.0f || s.row.has_min_p != 0;
  if (filtered) return Draw<kTeam>(s, vocab, KeyId(best), own_best);
  return DrawById<kTeam>(s, Weigh<kTeam>(s), KeyId(best));
}

__device__ __forceinline__ float LogprobOf(float logit, double log_total) {
  if (logit == NegativeInfinity()) return logit;
  return static_cast<float>(static_cast<double>(logit) - log_total);
}

// The `wanted` best logits to `top`.
template <int kTeam>
__device__ __forceinline__ void ReportBest(RowState& s, int32_t vocab, int wanted, float best,
                                           double log_total, TokenLogprob* top) {
  const TopTokens tokens = CollectTop<kTeam>(s, best, wanted);
  const int finite = min(wanted, tokens.members);
  if (tokens.listed > kListSize) {
    const double target = static_cast<double>(finite);
    Select<kTeam, false>(s, {Measure::kCount, false, true, target, 0});
  }
  if (s.rank != 0) return;
  if (tokens.listed <= kListSize) PullLists<kTeam>(s);
  for (int i = threadIdx.x; i < finite; i += kSampleThreads) {
    top[i] = {KeyId(s.keys[i]), LogprobOf(KeyScore(s.keys[i]), log_total)};
  }
  if (threadIdx.x == 0) ReportImpossible(s, vocab, top, finite, wanted);
}

// log of the sum of exp(logit); the best logits and those asked for by id, to `top`.
template <int kTeam>
__device__ __noinline__ double Report(RowState& s, int32_t vocab, float max, float best,
                                      TokenLogprob* top) {
  SetWeighing(s, max == NegativeInfinity() ? 0.0f : max, 1.0f);
  const double log_total = static_cast<double>(max) + log(Weigh<kTeam>(s));
  if (top == nullptr) return log_total;
  const int wanted = min(static_cast<int>(s.row.top_logprobs), vocab);
  if (wanted > 0) ReportBest<kTeam>(s, vocab, wanted, best, log_total, top);
  if (s.rank == 0) {
    const PackedList list = s.row.logprob_ids;
    const TokenId* ids = ListAt<TokenId>(s, list);
    for (uint32_t i = threadIdx.x; i < list.count; i += kSampleThreads) {
      top[wanted + i] = {ids[i], LogprobOf(CleanLogit(s.logits[ids[i]]), log_total)};
    }
  }
  return log_total;
}

template <int kTeam>
__device__ void Write(RowState& s, const SampleArgs& args, int row, uint32_t token,
                      uint32_t raw_argmax, double log_total) {
  SampleResult result;
  result.token = token;
  result.is_argmax = token == raw_argmax;
  if (s.row.report != 0) {
    const float logit = CleanLogit(s.logits[token]);
    Tally tally;
    for (int i = threadIdx.x; i < s.count; i += kSampleThreads) {
      if (s.first + i < args.vocab && CleanLogit(s.logits[s.first + i]) > logit) ++tally.n;
    }
    result.rank = 1 + AllReduce<kTeam, kN>(s, tally).n;
    result.logprob = LogprobOf(logit, log_total);
  }
  if (s.rank != 0 || threadIdx.x != 0) return;
  args.results[row] = result;
  if (args.last_token != nullptr && s.row.slot >= 0) {
    args.last_token[s.row.slot] = static_cast<int32_t>(token);
  }
}

constexpr size_t kStateBytes = (sizeof(RowState) + 15) / 16 * 16;

// Each of these leaves what follows it at a multiple of 16 bytes.
__host__ __device__ constexpr int ChunkFloats(int per_block) {
  return (per_block / kSampleChunk + 3) / 4 * 4;
}
__host__ __device__ constexpr int PerBlock(int vocab, int team) {
  const int chunks = (vocab + kSampleChunk - 1) / kSampleChunk;
  return (chunks + team - 1) / team * kSampleChunk;
}

// A team takes a row. On a single block the values lie in the workspace.
template <int kTeam>
__global__ void __launch_bounds__(kSampleThreads, 2) SampleKernel(const SampleArgs args) {
  extern __shared__ __align__(16) std::byte shared[];
  RowState& s = *reinterpret_cast<RowState*>(shared);
  const int row = blockIdx.y;
  const int per_block = PerBlock(args.vocab, kTeam);
  LetNextStart();
  WaitForPrior();
  constexpr unsigned kWords = sizeof(PackedSampleRow) / 4;
  if (threadIdx.x < kWords) {
    const uint32_t* from = reinterpret_cast<const uint32_t*>(args.packed) + row * kWords;
    reinterpret_cast<uint32_t*>(&s.row)[threadIdx.x] = from[threadIdx.x];
  }
  if (threadIdx.x == 0) {
    s.rank = TeamRank<kTeam>();
    s.turn = 0;
    s.per_block = per_block;
    s.first = s.rank * per_block;
    const int chunks = (args.vocab + kSampleChunk - 1) / kSampleChunk;
    s.count = max(0, min(per_block, chunks * kSampleChunk - s.first));
    s.chunk_sum = reinterpret_cast<float*>(shared + kStateBytes);
    s.values = kTeam > 1 ? s.chunk_sum + ChunkFloats(per_block)
                         : reinterpret_cast<float*>(args.workspace) + int64_t{row} * per_block;
    s.logits = args.logits + row * args.logits_stride;
    s.packed = args.packed;
    s.pending_found = 0;
  }
  __syncthreads();
  TeamArrive<kTeam>();
  Tally tally;
  const float own_best = LoadLogits(s, args.vocab, &tally.high);
  TeamWait<kTeam>();
  const uint64_t best = AllReduce<kTeam, kHigh>(s, tally).high;
  const uint32_t raw_argmax = KeyId(best);
  double log_total = 0;
  if (s.row.report != 0) {
    TokenLogprob* top = args.top != nullptr ? args.top + int64_t{row} * args.top_stride : nullptr;
    log_total = Report<kTeam>(s, args.vocab, KeyScore(best), own_best, top);
  }
  const uint32_t token = s.row.forced >= 0
                             ? static_cast<uint32_t>(s.row.forced)
                             : Choose<kTeam>(s, args.vocab, args.last_token, best, own_best);
  Write<kTeam>(s, args, row, token, raw_argmax, log_total);
}

template <int kTeam>
cudaError_t LaunchTeam(const SampleArgs& args, cudaStream_t stream) {
  const int per_block = PerBlock(args.vocab, kTeam);
  const int floats = ChunkFloats(per_block) + (kTeam > 1 ? per_block : 0);
  const size_t bytes = kStateBytes + static_cast<size_t>(floats) * sizeof(float);
  const cudaError_t error = cudaFuncSetAttribute(
      SampleKernel<kTeam>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  return LaunchDependent(SampleKernel<kTeam>, dim3(kTeam, args.rows), dim3(kSampleThreads), bytes,
                         kTeam, stream, args);
}

}  // namespace

size_t OneBlockWorkspaceBytes(int32_t rows, int32_t vocab) {
  return static_cast<size_t>(rows) * static_cast<size_t>(PerBlock(vocab, 1)) * sizeof(float);
}

size_t SampleWorkspaceBytes(int32_t rows, int32_t vocab) {
  return CurrentDeviceFacts().major >= 9 ? 0 : OneBlockWorkspaceBytes(rows, vocab);
}

std::string MissingSample(int64_t vocab) {
  if (vocab >= 1 && vocab <= kMaxSampleVocab) return "";
  return "vocab " + std::to_string(vocab) + " (1 to " + std::to_string(kMaxSampleVocab) + ")";
}

cudaError_t LaunchSampleOneBlock(const SampleArgs& args, cudaStream_t stream) {
  return LaunchTeam<1>(args, stream);
}

cudaError_t LaunchSample(const SampleArgs& args, cudaStream_t stream) {
  return CurrentDeviceFacts().major >= 9 ? LaunchTeam<kTeamBlocks>(args, stream)
                                         : LaunchSampleOneBlock(args, stream);
}

}  // namespace tessera::kernels::cuda
