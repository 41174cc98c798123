// Times paged decode attention over cold pages: a captured graph of launches, each over the page
// table of another block, 1 GB of keys and values or more in all.
#pragma once

#include <chrono>
#include <memory>

#include "kernels/cuda/attention/rope_append.h"
#include "tests/kernels/cuda/decode_support.cuh"

namespace tessera::check {

__global__ void FillPages(uint64_t* words, uint64_t count, uint64_t sign_and_low_bits,
                          uint64_t exponent_bits) {
  for (uint64_t i = blockIdx.x * uint64_t{blockDim.x} + threadIdx.x; i < count;
       i += uint64_t{gridDim.x} * blockDim.x) {
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z ^= z >> 29;
    words[i] = (z & sign_and_low_bits) | exponent_bits;
  }
}

struct DecodeLoad {
  int rows;
  int tokens;
  DType type;
  int q_rows = 1;
  int head_dim = 128;
};

// Pages of `blocks` tables in random order over one arena.
class BenchWorld {
 public:
  static constexpr int kQHeads = 32;
  static constexpr int kKvHeads = 8;

  explicit BenchWorld(const DecodeLoad& load) : load_(load) {
    const CacheFormat format{kKvHeads, load.head_dim, load.type};
    pages_per_row_ = (load.tokens + kPageTokens - 1) / kPageTokens;
    bytes_ = static_cast<double>(load.rows) * load.tokens * kKvHeads * load.head_dim * 2 *
             format.element_bytes();
    blocks_ = std::clamp(static_cast<int>(1.2e9 / bytes_) + 1, 2, 400);
    const size_t stride = static_cast<size_t>(load.rows) * pages_per_row_;
    std::vector<PageId> tables(stride * blocks_);
    for (size_t i = 0; i < tables.size(); ++i) {
      tables[i] = PageId(static_cast<uint32_t>(i * format.page_bytes() / kPageUnitBytes));
    }
    Rng rng(7);
    for (size_t i = tables.size(); i > 1; --i) {
      std::swap(tables[i - 1], tables[rng.Below(static_cast<uint32_t>(i))]);
    }
    CHECK_CUDA(cudaMalloc(&arena_, tables.size() * format.page_bytes()));
    const bool bf16 = load.type == DType::kBF16;
    FillPages<<<2048, 256>>>(reinterpret_cast<uint64_t*>(arena_),
                             tables.size() * format.page_bytes() / 8,
                             bf16 ? 0x80ff80ff80ff80ffull : 0x8787878787878787ull,
                             bf16 ? 0x3f003f003f003f00ull : 0x3030303030303030ull);
    CHECK_CUDA(cudaDeviceSynchronize());
    tables_ = std::make_unique<DeviceBuffer<PageId>>(tables);
    const size_t q_size = static_cast<size_t>(load.rows) * load.q_rows * kQHeads * load.head_dim;
    std::vector<uint16_t> q(q_size);
    for (uint16_t& bits : q) bits = Bf16Bits(rng.Normal());
    q_ = std::make_unique<DeviceBuffer<uint16_t>>(q);
    out_ = std::make_unique<DeviceBuffer<uint16_t>>(q_size);
    Plan(stride);
  }
  ~BenchWorld() { cudaFree(arena_); }

  [[nodiscard]] double bytes() const { return bytes_; }
  [[nodiscard]] double host_us() const { return host_us_; }
  // Microseconds a launch, one after the other.
  double Time(kernels::cuda::KvHistory history) {
    args_.history = history;
    return TimeBlocks(
        [&](cudaStream_t stream) { CHECK_CUDA(kernels::cuda::LaunchDecode(args_, stream)); });
  }
  // Microseconds that a launch adds between kernels of a few thread blocks (rope and append).
  double TimeInChain(kernels::cuda::KvHistory history) {
    args_.history = history;
    const kernels::cuda::RopeAppendArgs rope = Rope();
    const double both = TimeBlocks([&](cudaStream_t stream) {
      CHECK_CUDA(kernels::cuda::LaunchRopeAppend(rope, stream));
      CHECK_CUDA(kernels::cuda::LaunchDecode(args_, stream));
    });
    return both - TimeBlocks([&](cudaStream_t stream) {
             CHECK_CUDA(kernels::cuda::LaunchRopeAppend(rope, stream));
           });
  }

 private:
  double TimeBlocks(const std::function<void(cudaStream_t)>& record) {
    Graph graph([&](cudaStream_t stream) {
      for (int block = 0; block < blocks_; ++block) {
        args_.table = static_cast<uint32_t>(block);
        record(stream);
      }
    });
    return graph.MedianMs() * 1e3 / blocks_;
  }
  // Turns the queries in place and writes no page.
  kernels::cuda::RopeAppendArgs Rope() {
    kernels::cuda::RopeAppendArgs rope;
    rope.rows = load_.rows * load_.q_rows;
    angles_ = std::make_unique<DeviceBuffer<float>>(
        std::vector<float>(static_cast<size_t>(rope.rows) * load_.head_dim / 2, 0.7071f));
    invalid_ = std::make_unique<DeviceBuffer<PageId>>(std::vector<PageId>(rope.rows));
    slots_ = std::make_unique<DeviceBuffer<uint8_t>>(std::vector<uint8_t>(rope.rows));
    rope.q_heads = kQHeads;
    rope.kv_heads = kKvHeads;
    rope.head_dim = rope.rotary_dim = load_.head_dim;
    rope.q = reinterpret_cast<__nv_bfloat16*>(q_->get());
    rope.k = rope.v = rope.q;
    rope.q_stride = rope.k_stride = rope.v_stride = int64_t{kQHeads} * load_.head_dim;
    rope.cosine = rope.sine = angles_->get();
    rope.arena = arena_;
    rope.page = invalid_->get();
    rope.slot = slots_->get();
    return rope;
  }
  void Plan(size_t stride) {
    kernels::cuda::DecodePlanOptions options;
    options.q_heads = kQHeads;
    options.kv_heads = kKvHeads;
    options.head_dim = load_.head_dim;
    int processors;
    CHECK_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    options.grid = static_cast<uint32_t>(processors);
    std::vector<DecodeRow> rows(load_.rows);
    for (int i = 0; i < load_.rows; ++i) {
      rows[i].q_begin = i * load_.q_rows;
      rows[i].q_rows = load_.q_rows;
      rows[i].position = load_.tokens - load_.q_rows;
      rows[i].table_stride = static_cast<uint32_t>(stride);
      rows[i].page_table = tables_->get() + static_cast<size_t>(i) * pages_per_row_;
    }
    std::vector<std::byte> plan(kernels::cuda::DecodePlanBytes(load_.rows, load_.q_rows, options));
    for (int repeat = 0; repeat < 20; ++repeat) {
      const auto begin = std::chrono::steady_clock::now();
      kernels::cuda::BuildDecodePlan(rows, options, plan.data());
      const std::chrono::duration<double, std::micro> took =
          std::chrono::steady_clock::now() - begin;
      host_us_ = repeat == 0 ? took.count() : std::min(host_us_, took.count());
    }
    plan_ = std::make_unique<DeviceBuffer<std::byte>>(plan);
    args_.partials = kernels::cuda::DecodePartials(load_.rows, load_.q_rows, options);
    const size_t bytes = kernels::cuda::DecodeWorkspaceBytes(args_.partials, load_.q_rows, kQHeads,
                                                             kKvHeads, load_.head_dim);
    workspace_ = std::make_unique<DeviceBuffer<std::byte>>(bytes);
    args_.plan = plan_->get();
    args_.grid = options.grid;
    args_.q = reinterpret_cast<__nv_bfloat16*>(q_->get());
    args_.q_stride = int64_t{kQHeads} * load_.head_dim;
    args_.out = reinterpret_cast<__nv_bfloat16*>(out_->get());
    args_.arena = arena_;
    args_.q_heads = kQHeads;
    args_.kv_heads = kKvHeads;
    args_.head_dim = load_.head_dim;
    args_.kv_type = load_.type;
    args_.scale = 0.088f;
    args_.max_q_rows = load_.q_rows;
    args_.workspace = workspace_->get();
  }

  DecodeLoad load_;
  int pages_per_row_ = 0;
  int blocks_ = 0;
  double bytes_ = 0;
  double host_us_ = 0;
  std::byte* arena_ = nullptr;
  std::unique_ptr<DeviceBuffer<PageId>> tables_;
  std::unique_ptr<DeviceBuffer<uint16_t>> q_, out_;
  std::unique_ptr<DeviceBuffer<std::byte>> plan_, workspace_;
  std::unique_ptr<DeviceBuffer<float>> angles_;
  std::unique_ptr<DeviceBuffer<PageId>> invalid_;
  std::unique_ptr<DeviceBuffer<uint8_t>> slots_;
  kernels::cuda::DecodeArgs args_;
};

// Rope and append of Llama-3-8B's shape, a launch after the other.
inline void BenchRopeAppend(double copy) {
  for (const int rows : {1, 64, 8192}) {
    const int stride = 48 * 128;
    DeviceBuffer<uint16_t> qkv(std::vector<uint16_t>(static_cast<size_t>(rows) * stride, 0x3f12));
    DeviceBuffer<float> angles(std::vector<float>(static_cast<size_t>(rows) * 64, 0.5f));
    std::vector<PageId> page;
    std::vector<uint8_t> slot;
    const CacheFormat format{8, 128, DType::kBF16};
    for (int i = 0; i < rows; ++i) {
      page.push_back(PageId(static_cast<uint32_t>(i / 64 * format.page_bytes() / kPageUnitBytes)));
      slot.push_back(static_cast<uint8_t>(i % 64));
    }
    DeviceBuffer<uint8_t> arena((rows / 64 + 1) * format.page_bytes());
    DeviceBuffer<PageId> pages(page);
    DeviceBuffer<uint8_t> slots(slot);
    kernels::cuda::RopeAppendArgs args;
    args.rows = rows;
    args.q_heads = 32;
    args.kv_heads = 8;
    args.head_dim = args.rotary_dim = 128;
    args.q = reinterpret_cast<__nv_bfloat16*>(qkv.get());
    args.k = args.q + 32 * 128;
    args.v = args.q + 40 * 128;
    args.q_stride = args.k_stride = args.v_stride = stride;
    args.cosine = args.sine = angles.get();
    args.arena = reinterpret_cast<std::byte*>(arena.get());
    args.page = pages.get();
    args.slot = slots.get();
    Graph graph([&](cudaStream_t stream) {
      for (int i = 0; i < 32; ++i) CHECK_CUDA(LaunchRopeAppend(args, stream));
    });
    const double us = graph.MedianMs() * 1e3 / 32;
    const double bytes = rows * (2.0 * stride * 2 + 2 * 64 * 4);
    std::printf("rope+append rows %5d: %7.2f us  limit %7.2f us (%.0f%%)\n", rows, us,
                bytes / copy * 1e6, bytes / copy * 1e8 / us);
  }
}

inline void BenchLoad(const DecodeLoad& load, double copy) {
  using kernels::cuda::KvHistory;
  BenchWorld world(load);
  const double us = world.Time(KvHistory::kInFlight);
  const double limit = world.bytes() / copy * 1e6;
  std::printf("%5d%8d%6s%5d%3d%9.2f%9.2f%9.2f%9.2f%9.2f%5.0f%%%8.1f\n", load.rows, load.tokens,
              load.type == DType::kBF16 ? "bf16" : "e4m3", load.head_dim, load.q_rows, us,
              world.Time(KvHistory::kSettled), world.TimeInChain(KvHistory::kInFlight),
              world.TimeInChain(KvHistory::kSettled), limit, 100 * limit / us, world.host_us());
  std::fflush(stdout);
}

// `only`: the number of the one load to time; negative: all.
inline int BenchDecode(int only) {
  const DType bf16 = DType::kBF16;
  const DType e4m3 = DType::kF8E4M3;
  const std::vector<DecodeLoad> loads = {
      {1, 64, bf16},       {1, 1024, bf16},          {1, 8192, bf16},          {1, 32768, bf16},
      {1, 131072, bf16},   {8, 1024, bf16},          {8, 32768, bf16},         {64, 1024, bf16},
      {64, 8192, bf16},    {256, 512, bf16},         {256, 2048, bf16},        {8, 32768, bf16, 4},
      {8, 32768, bf16, 8}, {16, 32768, bf16, 1, 64}, {8, 16384, bf16, 1, 256}, {1, 1024, e4m3},
      {1, 8192, e4m3},     {8, 32768, e4m3},         {64, 8192, e4m3},         {8, 32768, e4m3, 8},
  };
  const double copy = CopyBandwidth();
  std::printf("%s, copy %.2f TB/s; q 32 / kv 8 heads; us a launch\n", DeviceName().c_str(),
              copy / 1e12);
  std::printf("%5s%8s%6s%5s%3s%9s%9s%9s%9s%9s%6s%8s\n", "rows", "tokens", "type", "dim", "q",
              "alone", "settled", "chain", "settled", "limit", "of C", "plan us");
  for (size_t i = 0; i < loads.size(); ++i) {
    if (only < 0 || only == static_cast<int>(i)) BenchLoad(loads[i], copy);
  }
  if (only < 0) BenchRopeAppend(copy);
  return 0;
}

}  // namespace tessera::check
