// Checks decode attention that rotates and appends by itself against the two launches that it
// stands for, each of which is checked against float64: the same results and the same pages, bit
// for bit.
#pragma once

#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/attention/rope_append.h"
#include "tests/kernels/cuda/decode_support.cuh"

namespace tessera::check {

struct AppendCase {
  int head_dim;
  int q_heads;
  int kv_heads;
  int rotary_dim;
  kernels::RopeStyle style;
  DType type;
  std::vector<int> tokens;  // of each sequence, the new one included
  int window = 0;
  uint32_t grid = 0;  // 0: the device's
  kernels::cuda::DecodeSplits splits = kernels::cuda::DecodeSplits::kBalanced;
  kernels::cuda::DecodeRing ring = kernels::cuda::DecodeRing::kWhole;
  kernels::cuda::KvHistory history = kernels::cuda::KvHistory::kSettled;
};

class AppendWorld {
 public:
  AppendWorld(const AppendCase& c, uint64_t seed)
      : c_(c), rng_(seed), cache_({c.kv_heads, c.head_dim, c.type}, Pages(c)) {
    stride_ = (c.q_heads + 2 * c.kv_heads) * c.head_dim + 8;
    qkv_.resize(c.tokens.size() * stride_);
    for (uint16_t& bits : qkv_) bits = Bf16Bits(rng_.Normal());
    for (int i = 0; i < 23 * c.rotary_dim / 2; ++i) {
      const float angle = 6.28f * rng_.Uniform();
      cosine_.push_back(std::cos(angle));
      sine_.push_back(std::sin(angle));
    }
    for (size_t row = 0; row < c.tokens.size(); ++row) AddSequence(row);
  }

  void Run(Report& report) {
    Results want = Launch(/*fused=*/false);
    Results got = Launch(/*fused=*/true);
    const bool pages = got.arena == want.arena;
    const bool same = got.out == want.out;
    report.Case(supported_ && stable_ && pages && same,
                "append %s dim %d heads %d/%d turning %d %s window %d rows %zu%s%s%s%s",
                c_.type == DType::kBF16 ? "bf16" : "e4m3", c_.head_dim, c_.q_heads, c_.kv_heads,
                c_.rotary_dim, c_.style == kernels::RopeStyle::kHalf ? "half" : "interleaved",
                c_.window, c_.tokens.size(), supported_ ? "" : "  NOT SUPPORTED",
                stable_ ? "" : "  NOT REPEATABLE", pages ? "" : "  OTHER PAGES",
                same ? "" : "  OTHER RESULTS");
  }

 private:
  struct Results {
    std::vector<uint16_t> out;
    std::vector<uint8_t> arena;
  };

  static uint32_t Pages(const AppendCase& c) {
    uint32_t pages = 4;
    for (const int tokens : c.tokens) pages += tokens / kPageTokens + 1;
    return pages;
  }

  // Slots before the new token hold numbers, the others not-a-number; every fifth row's token has
  // been written already.
  void AddSequence(size_t row) {
    const int tokens = c_.tokens[row];
    const bool written = row % 5 == 4;
    first_page_.push_back(tables_.size());
    for (int t = 0; t < tokens; ++t) {
      if (t % kPageTokens == 0) tables_.push_back(cache_.Take(rng_));
      if (t + 1 == tokens && !written) break;
      for (int head = 0; head < c_.kv_heads; ++head) {
        for (int d = 0; d < c_.head_dim; ++d) {
          cache_.Set(tables_.back(), head, Plane::kKey, t % kPageTokens, d, rng_.Normal());
          cache_.Set(tables_.back(), head, Plane::kValue, t % kPageTokens, d, rng_.Normal());
        }
      }
    }
    page_.push_back(written ? PageId() : tables_.back());
    slot_.push_back(static_cast<uint8_t>((tokens - 1) % kPageTokens));
    rotary_rows_.push_back(static_cast<int32_t>(rng_.Below(23)));
  }

  [[nodiscard]] kernels::cuda::DecodePlanOptions Options() const {
    int processors;
    CHECK_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    return {.q_heads = c_.q_heads,
            .kv_heads = c_.kv_heads,
            .head_dim = c_.head_dim,
            .window = c_.window,
            .grid = c_.grid == 0 ? static_cast<uint32_t>(processors) : c_.grid,
            .splits = c_.splits};
  }

  // Device copies of the case.
  struct Device {
    DeviceBuffer<uint16_t> qkv, out;
    DeviceBuffer<uint8_t> arena, slot;
    DeviceBuffer<float> cosine, sine;
    DeviceBuffer<PageId> page, tables;
    DeviceBuffer<int32_t> rotary_rows;
    DeviceBuffer<std::byte> plan, workspace;
  };

  [[nodiscard]] kernels::cuda::RopeAppendArgs AppendArgs(const Device& device) const {
    kernels::cuda::RopeAppendArgs append;
    append.rows = static_cast<int32_t>(c_.tokens.size());
    append.q_heads = c_.q_heads;
    append.kv_heads = c_.kv_heads;
    append.head_dim = c_.head_dim;
    append.rotary_dim = c_.rotary_dim;
    append.style = c_.style;
    append.kv_type = c_.type;
    append.q = reinterpret_cast<__nv_bfloat16*>(device.qkv.get());
    append.k = append.q + c_.q_heads * c_.head_dim;
    append.v = append.k + c_.kv_heads * c_.head_dim;
    append.q_stride = append.k_stride = append.v_stride = stride_;
    append.cosine = device.cosine.get();
    append.sine = device.sine.get();
    append.rotary_rows = device.rotary_rows.get();
    append.arena = reinterpret_cast<std::byte*>(device.arena.get());
    append.page = device.page.get();
    append.slot = device.slot.get();
    return append;
  }

  [[nodiscard]] kernels::cuda::DecodeArgs Args(const Device& device, size_t partials) const {
    kernels::cuda::DecodeArgs args;
    args.plan = device.plan.get();
    args.grid = Options().grid;
    args.q = reinterpret_cast<const __nv_bfloat16*>(device.qkv.get());
    args.q_stride = stride_;
    args.out = reinterpret_cast<__nv_bfloat16*>(device.out.get());
    args.arena = reinterpret_cast<const std::byte*>(device.arena.get());
    args.q_heads = c_.q_heads;
    args.kv_heads = c_.kv_heads;
    args.head_dim = c_.head_dim;
    args.kv_type = c_.type;
    args.scale = 1.f / std::sqrt(static_cast<float>(c_.head_dim));
    args.window = c_.window;
    args.history = c_.history;
    args.ring = c_.ring;
    args.workspace = device.workspace.get();
    args.partials = partials;
    return args;
  }

  [[nodiscard]] std::vector<std::byte> Plan(const PageId* tables) const {
    std::vector<kernels::cuda::DecodeRow> rows(c_.tokens.size());
    for (size_t row = 0; row < rows.size(); ++row) {
      rows[row].q_begin = static_cast<int32_t>(row);
      rows[row].q_rows = 1;
      rows[row].position = c_.tokens[row] - 1;
      rows[row].page_table = tables + first_page_[row];
    }
    std::vector<std::byte> plan(DecodePlanBytes(rows.size(), 1, Options()));
    BuildDecodePlan(rows, Options(), plan.data());
    return plan;
  }

  Results Launch(bool fused) {
    const auto rows = static_cast<uint32_t>(c_.tokens.size());
    const size_t partials = kernels::cuda::DecodePartials(rows, 1, Options());
    Device device{DeviceBuffer<uint16_t>(qkv_),
                  DeviceBuffer<uint16_t>(size_t{rows} * c_.q_heads * c_.head_dim),
                  DeviceBuffer<uint8_t>(cache_.bytes()),
                  DeviceBuffer<uint8_t>(slot_),
                  DeviceBuffer<float>(cosine_),
                  DeviceBuffer<float>(sine_),
                  DeviceBuffer<PageId>(page_),
                  DeviceBuffer<PageId>(tables_),
                  DeviceBuffer<int32_t>(rotary_rows_),
                  DeviceBuffer<std::byte>(kernels::cuda::DecodePlanBytes(rows, 1, Options())),
                  DeviceBuffer<std::byte>(kernels::cuda::DecodeWorkspaceBytes(
                      partials, 1, c_.q_heads, c_.kv_heads, c_.head_dim))};
    device.plan.Upload(Plan(device.tables.get()));
    const kernels::cuda::RopeAppendArgs append = AppendArgs(device);
    kernels::cuda::DecodeArgs args = Args(device, partials);
    if (fused) args.append = append;
    supported_ =
        supported_ && MissingDecode(args).empty() && (!fused || MissingDecodeAppend(args).empty());
    const auto launch = [&](cudaStream_t stream) {
      if (!fused) CHECK_CUDA(LaunchRopeAppend(append, stream));
      CHECK_CUDA(LaunchDecode(args, stream));
    };
    launch(nullptr);
    CHECK_CUDA(cudaDeviceSynchronize());
    const Results first{device.out.Download(), device.arena.Download()};
    // Again from a graph, over the pages as they were.
    device.qkv.Upload(qkv_);
    device.arena.Upload(cache_.bytes());
    device.out.Poison();
    Graph graph(launch);
    graph.Run();
    stable_ = stable_ && first.out == device.out.Download() &&
              first.arena == device.arena.Download() && device.out.CanaryIntact() &&
              device.arena.CanaryIntact() && device.workspace.CanaryIntact() &&
              (!fused || device.qkv.Download() == qkv_);
    return first;
  }

  const AppendCase& c_;
  Rng rng_;
  HostCache cache_;
  int stride_ = 0;
  std::vector<uint16_t> qkv_;
  std::vector<float> cosine_, sine_;
  std::vector<PageId> tables_, page_;
  std::vector<size_t> first_page_;  // of each row in tables_
  std::vector<uint8_t> slot_;
  std::vector<int32_t> rotary_rows_;
  bool supported_ = true;
  bool stable_ = true;
};

inline void CheckDecodeAppend(Report& report) {
  using kernels::RopeStyle;
  using kernels::cuda::DecodeRing;
  using kernels::cuda::DecodeSplits;
  using kernels::cuda::KvHistory;
  const std::vector<int> lengths = {1, 64, 65, 128, 1000, 63, 2, 700, 129, 321};
  std::vector<AppendCase> cases;
  for (const DType type : {DType::kBF16, DType::kF8E4M3}) {
    for (const int dim : {64, 80, 96, 128, 256}) {
      cases.push_back({dim, 8, 2, dim / 16 * 16, RopeStyle::kHalf, type, lengths});
      cases.push_back({dim, 6, 2, 32, RopeStyle::kInterleaved, type, lengths});
    }
    cases.push_back({128, 8, 1, 0, RopeStyle::kHalf, type, lengths});
    cases.push_back({128, 4, 4, 128, RopeStyle::kHalf, type, lengths, 100});
    cases.push_back({128, 8, 2, 128, RopeStyle::kHalf, type, lengths, 0, 3});
    cases.push_back({128,
                     32,
                     8,
                     128,
                     RopeStyle::kHalf,
                     type,
                     {1100},
                     0,
                     0,
                     DecodeSplits::kBalanced,
                     DecodeRing::kHalf});
    cases.push_back({64,
                     32,
                     8,
                     64,
                     RopeStyle::kHalf,
                     type,
                     {5000, 1, 1024, 1025, 3},
                     0,
                     0,
                     DecodeSplits::kBySequence,
                     DecodeRing::kHalf});
    cases.push_back({128, 8, 2, 64, RopeStyle::kHalf, type, lengths, 0, 0, DecodeSplits::kBalanced,
                     DecodeRing::kWhole, KvHistory::kInFlight});
  }
  uint64_t seed = 900;
  for (const AppendCase& c : cases) AppendWorld(c, seed++).Run(report);
}

}  // namespace tessera::check
