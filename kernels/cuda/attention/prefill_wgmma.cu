// Prefill attention with wgmma, on compute capability 9.0. Compiled for sm_90a only.
//
// A block stays on its multiprocessor and takes items until none is left. One warpgroup produces:
// a warp takes items, a warp copies their keys and values, tile by tile, into a ring in shared
// memory, two warps copy queries. For pages of e4m3 these two convert tiles instead: tiles are f16
// then, and so are queries and weights (as in decode attention). Two warpgroups consume, 64 rows
// each, with scores, weights and output in registers. Within a consumer the softmax of a tile runs
// beside the product of the earlier tile's weights and values; between consumers, one issues its
// products while the other does its softmax (the scheme of FlashAttention-3, arXiv 2407.08608, 3.1
// and 3.2).
#include "kernels/cuda/attention/prefill_wgmma_load.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace tessera::kernels::cuda {
namespace prefill {
namespace {

// Output columns: full panels, and the tail.
template <typename S>
struct Output {
  float full[32 * S::kFullPanels];
  float tail[S::kTail > 0 ? S::kTail / 2 : 1];

  __device__ __forceinline__ void Pin() {
    WgmmaPin(full);
    if constexpr (S::kTail > 0) WgmmaPin(tail);
  }
  __device__ __forceinline__ void Scale(const float (&factor)[2]) {
    ScaleRows(full, factor);
    if constexpr (S::kTail > 0) ScaleRows(tail, factor);
  }
  template <typename Element>
  __device__ __forceinline__ void StoreTo(Element* const (&row)[2]) {
    StoreRows(full, row, 0);
    if constexpr (S::kTail > 0) StoreRows(tail, row, 64 * S::kFullPanels);
  }
  __device__ __forceinline__ void Store(const KernelArgs& args, const Item& item, int first_row,
                                        const RowEnds& ends) {
    if (item.partial == PrefillPlanItem::kWhole) {
      __nv_bfloat16* row[2];
      FindRows(args, item, first_row, row);
      StoreTo(row);
    } else {
      float* row[2];
      StoreStatistics(args, item, first_row, ends, row);
      StoreTo(row);
    }
  }
};

// score = queries keys^T; 64 rows from address `queries` on.
template <typename S>
__device__ __forceinline__ void MultiplyKeys(float (&score)[S::kKeys / 2], uint32_t queries,
                                             uint32_t keys) {
  using T = typename S::Product;
  const uint64_t a = WgmmaDescriptor<128>(queries, 1024);
  const uint64_t b = WgmmaDescriptor<128>(keys, 1024);
#pragma unroll
  for (int step = 0; step < S::kFullPanels * 4; ++step) {
    const int panel = step / 4;
    Wgmma<S::kKeys>::template Shared<T>(score, WgmmaAdvance(a, panel * 64 * 128 + step % 4 * 32),
                                        WgmmaAdvance(b, panel * S::kKeys * 128 + step % 4 * 32),
                                        step > 0);
  }
  if constexpr (S::kTail > 0) {
    constexpr int kWidth = 2 * S::kTail;
    const uint64_t a_tail =
        WgmmaDescriptor<kWidth>(queries + S::kFullPanels * 64 * 128, 8 * kWidth);
    const uint64_t b_tail =
        WgmmaDescriptor<kWidth>(keys + S::kFullPanels * S::kKeys * 128, 8 * kWidth);
#pragma unroll
    for (int step = 0; step < S::kTail / 16; ++step) {
      Wgmma<S::kKeys>::template Shared<T>(score, WgmmaAdvance(a_tail, step * 32),
                                          WgmmaAdvance(b_tail, step * 32), true);
    }
  }
}

// output (+)= weights values.
template <typename S>
__device__ __forceinline__ void MultiplyValues(Output<S>& output,
                                               const uint32_t (&weight)[S::kKeys / 16][4],
                                               uint32_t values, bool accumulate) {
  using T = typename S::Product;
  const uint64_t b = WgmmaDescriptor<128>(values, 1024, S::kKeys * 128);
#pragma unroll
  for (int step = 0; step < S::kKeys / 16; ++step) {
    Wgmma<64 * S::kFullPanels>::template Registers<T, 1>(
        output.full, weight[step], WgmmaAdvance(b, step * 16 * 128), accumulate || step > 0);
  }
  if constexpr (S::kTail > 0) {
    constexpr int kWidth = 2 * S::kTail;
    const uint64_t b_tail =
        WgmmaDescriptor<kWidth>(values + S::kFullPanels * S::kKeys * 128, 8 * kWidth);
#pragma unroll
    for (int step = 0; step < S::kKeys / 16; ++step) {
      Wgmma<S::kTail>::template Registers<T, 1>(output.tail, weight[step],
                                                WgmmaAdvance(b_tail, step * 16 * kWidth),
                                                accumulate || step > 0);
    }
  }
}

// Writes zeros over the values of keys that no row of the item sees, whatever they are: a weight of
// 0 does not hide a value that is not a number. Both consumers do so, each before it reads.
template <typename S>
__device__ __forceinline__ void ZeroUnseen(const Item& item, int tile, std::byte* values,
                                           int consumer) {
  const int key = tile * S::kKeys;
  if (key >= item.first_key && key + S::kKeys - 1 <= item.last_key) return;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int first = item.first_key - key;
  const int last = item.last_key - key;
  for (int panel = 0; panel < S::kPanels; ++panel) {
    const int chunks = panel < S::kFullPanels ? 8 : S::kTail / 8;  // of a key
    for (int i = thread; i < S::kKeys * chunks; i += 128) {
      const int at = i / chunks;
      if (at >= first && at <= last) continue;
      *reinterpret_cast<uint4*>(values + panel * S::kKeys * 128 + i * 16) = make_uint4(0, 0, 0, 0);
    }
  }
  FenceAsyncShared();
  SyncNamed(kZeroBarrier + consumer, 128);
}

// What a consumer warp keeps.
template <typename S>
struct Consumer {
  const KernelArgs& args;
  const Shared<S> shared;
  const int index;      // of the warpgroup
  const int first_row;  // of the warp
  Cursor<S::kRing> ring = {};
  int key_slot = 0;  // of the products under way
  int value_slot = 0;
  Output<S> output;
  float score[S::kKeys / 2];
  uint32_t weight[S::kKeys / 16][4];
  Softmax softmax;
  int low;  // least and greatest position of the warp's rows
  int high;

  __device__ __forceinline__ int TakeTile() {
    BarrierWait(&shared.control().tiles.full[ring.slot], ring.phase);
    const int slot = ring.slot;
    ring.Next();
    return slot;
  }
  __device__ __forceinline__ void Release(int slot) {
    if (LaneId() == 0) BarrierArrive(&shared.control().tiles.empty[slot]);
  }
  __device__ __forceinline__ void Begin(const Item& item) {
    softmax = MakeSoftmax(args, item, first_row);
    low = item.position + QueryOf(args, item.pair_begin + first_row);
    high = item.position + QueryOf(args, item.pair_begin + first_row + 15);
  }

  __device__ __forceinline__ void StartScores(uint32_t queries) {
    key_slot = TakeTile();
    WgmmaFence();
    MultiplyKeys<S>(score, queries, SharedAddress(shared.Tile(key_slot)));
    WgmmaCommit();
  }
  __device__ __forceinline__ void StartValues(const Item& item, int tile, bool accumulate) {
    value_slot = TakeTile();
    ZeroUnseen<S>(item, tile, shared.Tile(value_slot), index);
    WgmmaFence();
    MultiplyValues<S>(output, weight, SharedAddress(shared.Tile(value_slot)), accumulate);
    WgmmaCommit();
  }
  // Both, in turn with the other consumer.
  __device__ __forceinline__ void Start(uint32_t queries, const Item& item, int value_tile,
                                        bool accumulate) {
    SyncNamed(kTurnBarrier + index, 256);
    StartScores(queries);
    StartValues(item, value_tile, accumulate);
    ArriveNamed(kTurnBarrier + (1 - index), 256);
  }
  // When kPending later products may still run: scores of `tile` to weights.
  template <int kPending>
  __device__ __forceinline__ void FinishScores(int tile, float (&correction)[2]) {
    WgmmaWait<kPending>();
    WgmmaPin(score);
    Release(key_slot);
    const int key = tile * S::kKeys;
    const int window = args.call.window;
    if (key + S::kKeys - 1 > low || (window > 0 && key <= high - window)) {
      softmax.Mask(score, key, window);
    }
    softmax.Update(score, args.scale_log2, correction);
    WgmmaPin(score);
  }
  __device__ __forceinline__ void WaitValues() {
    WgmmaWait<0>();
    output.Pin();
#pragma unroll
    for (int step = 0; step < S::kKeys / 16; ++step) WgmmaPin(weight[step]);
    Release(value_slot);
  }
  // Then multiplies rows by `factor`. The assembler would move a wait that follows the softmax in a
  // straight line before it, and nothing would run beside the product: so it lies behind a branch,
  // on either side, which all warps of the warpgroup take alike, as waits want it.
  __device__ __forceinline__ void FinishValues(const float (&factor)[2]) {
    uint32_t blocks;  // never 0, which the compiler cannot know
    asm volatile("mov.u32 %0, %%nctaid.x;" : "=r"(blocks));
    if (blocks != 0) {
      WaitValues();
      if (AnyFactor(factor)) output.Scale(factor);
    } else {
      WaitValues();
    }
  }
  __device__ __forceinline__ void PackScores() {
#pragma unroll
    for (int step = 0; step < S::kKeys / 16; ++step) {
      PackWeights<typename S::Product>(score, step, weight[step]);
    }
  }

  // The block's first scores: nothing to run beside them.
  __device__ __forceinline__ void First(uint32_t queries, const Item& item) {
    Begin(item);
    StartScores(queries);
    float correction[2];
    FinishScores<0>(item.first_key / S::kKeys, correction);
    PackScores();
  }
  // The scores of `tile`, and the values of the one before.
  __device__ __forceinline__ void Step(uint32_t queries, const Item& item, int tile,
                                       bool accumulate) {
    Start(queries, item, tile - 1, accumulate);
    float correction[2];
    FinishScores<1>(tile, correction);
    FinishValues(correction);
    PackScores();
  }
  // The first scores of `next`, and the last values of `item`, which is stored.
  __device__ __forceinline__ void Change(uint32_t queries, const Item& item, const Item& next,
                                         bool accumulate) {
    Start(queries, item, item.last_key / S::kKeys, accumulate);
    const RowEnds ends = softmax.End(args, item);
    Begin(next);
    float correction[2];
    FinishScores<1>(next.first_key / S::kKeys, correction);
    FinishValues(ends.factor);
    PackScores();
    output.Store(args, item, first_row, ends);
  }
  __device__ __forceinline__ void Last(const Item& item, bool accumulate) {
    StartValues(item, item.last_key / S::kKeys, accumulate);
    const RowEnds ends = softmax.End(args, item);
    FinishValues(ends.factor);
    output.Store(args, item, first_row, ends);
  }
};

template <typename S>
__device__ __forceinline__ void Consume(const KernelArgs& args, const Shared<S>& shared,
                                        int index) {
  Control& control = shared.control();
  Cursor<kItems> cursor;
  Cursor<S::kQuerySlots> query;
  const auto take = [&] {
    BarrierWait(&control.query_full[query.slot], query.phase);
    return control.items[cursor.slot];
  };
  const auto queries = [&] {
    return SharedAddress(shared.Query(query.slot)) + index * PlaneBytes(S::kDim, 2);
  };
  Consumer<S> consumer{args, shared, index,
                       64 * index + static_cast<int>(threadIdx.x) % 128 / 32 * 16};
  if (index == 1) ArriveNamed(kTurnBarrier, 256);
  Item item = take();
  if (item.pairs == 0) return;
  consumer.First(queries(), item);
  while (true) {
    const int last = item.last_key / S::kKeys;
    bool accumulate = false;
    for (int tile = item.first_key / S::kKeys + 1; tile <= last; ++tile) {
      consumer.Step(queries(), item, tile, accumulate);
      accumulate = true;
    }
    __syncwarp();
    if (LaneId() == 0) {
      BarrierArrive(&control.query_empty[query.slot]);
      BarrierArrive(&control.item_empty[cursor.slot]);
    }
    query.Next();
    cursor.Next();
    const Item next = take();
    if (next.pairs == 0) {
      consumer.Last(item, accumulate);
      return;
    }
    consumer.Change(queries(), item, next, accumulate);
    item = next;
  }
}

template <typename S>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillWgmmaKernel(const __grid_constant__ KernelArgs args) {
  extern __shared__ __align__(1024) std::byte memory[];
  const Shared<S> shared{memory};
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  if (threadIdx.x == 0) {
    Control& control = shared.control();
    for (int i = 0; i < S::kRing; ++i) {
      BarrierInit(&control.tiles.full[i], S::kE4m3 ? kConverterThreads : 1);
      BarrierInit(&control.tiles.empty[i], 4 * kConsumers);
    }
    for (int i = 0; i < S::kCodeRing; ++i) {
      BarrierInit(&control.codes.full[i], 1);
      BarrierInit(&control.codes.empty[i], kConverterThreads);
    }
    for (int i = 0; i < kItems; ++i) {
      BarrierInit(&control.item_full[i], 1);
      BarrierInit(&control.item_empty[i], 4 * kConsumers);
    }
    for (int i = 0; i < S::kQuerySlots; ++i) {
      BarrierInit(&control.query_full[i], S::kQueryThreads);
      BarrierInit(&control.query_empty[i], 4 * kConsumers);
    }
    BarrierInitFence();
  }
  __syncthreads();
  WaitForPrior();
  if (warpgroup == 0) {
    LowerRegisters<S::kProducerRegisters>();
    const uint32_t thread = threadIdx.x;
    if (thread < 32) {
      ProduceTiles(args, shared);
    } else if (thread < 64) {
      ProduceItems(args, shared);
    } else if constexpr (S::kE4m3) {
      ConvertTiles(shared, thread - 64);
    } else {
      ProduceQueries(args, shared, thread - 64);
    }
  } else {
    RaiseRegisters<S::kConsumerRegisters>();
    Consume(args, shared, warpgroup - 1);
  }
}

}  // namespace
}  // namespace prefill

namespace {

template <typename S>
cudaError_t LaunchShape(const PrefillArgs& args, cudaStream_t stream) {
  static const cudaError_t raised = cudaFuncSetAttribute(
      prefill::PrefillWgmmaKernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kSharedBytes);
  if (raised != cudaSuccess) return raised;
  return LaunchDependent(prefill::PrefillWgmmaKernel<S>, dim3(CurrentDeviceFacts().multiprocessors),
                         dim3(prefill::kThreads), S::kSharedBytes, 1, stream,
                         prefill::MakeKernelArgs(args));
}
template <int kDim>
cudaError_t Launch(const PrefillArgs& args, cudaStream_t stream) {
  return args.kv_dtype == DType::kF8E4M3 ? LaunchShape<prefill::Shape<kDim, true>>(args, stream)
                                         : LaunchShape<prefill::Shape<kDim, false>>(args, stream);
}

}  // namespace

cudaError_t LaunchPrefillWgmma(const PrefillArgs& args, cudaStream_t stream) {
  switch (args.head_dim) {
    case 64:
      return Launch<64>(args, stream);
    case 80:
      return Launch<80>(args, stream);
    case 96:
      return Launch<96>(args, stream);
    case 128:
      return Launch<128>(args, stream);
    default:
      return Launch<256>(args, stream);
  }
}

}  // namespace tessera::kernels::cuda
