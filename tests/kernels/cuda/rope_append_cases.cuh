// Checks rope and append: rotated queries, the tokens in their pages, and that nothing else moved.
#pragma once

#include "kernels/cuda/attention/rope_append.h"
#include "tests/kernels/cuda/decode_support.cuh"

namespace tessera::check {

struct RopeCase {
  int rows;
  int q_heads;
  int kv_heads;
  int head_dim;
  int rotary_dim;
  kernels::RopeStyle style;
  DType type;
  bool own_tables = false;  // a row of cosine and sine for each row, in order
};

class RopeWorld {
 public:
  RopeWorld(const RopeCase& c, uint64_t seed)
      : c_(c), rng_(seed), cache_({c.kv_heads, c.head_dim, c.type}, Pages(c)) {
    stride_ = (c.q_heads + 2 * c.kv_heads) * c.head_dim + 8;
    qkv_.resize(static_cast<size_t>(c.rows) * stride_);
    for (uint16_t& bits : qkv_) bits = Bf16Bits(rng_.Normal());
    const int angles = std::max(c.rows, 37) * c.rotary_dim / 2;
    for (int i = 0; i < angles; ++i) {
      const float angle = 6.28f * rng_.Uniform();
      cosine_.push_back(std::cos(angle));
      sine_.push_back(std::sin(angle));
    }
    for (int row = 0; row < c.rows; ++row) {
      if (row % 64 == 0) current_ = cache_.Take(rng_);
      page_.push_back(row % 9 == 5 ? PageId() : current_);
      slot_.push_back(static_cast<uint8_t>(row % 64 * 37 % 64));
      rotary_rows_.push_back(static_cast<int32_t>(rng_.Below(37)));
    }
  }

  void Run(Report& report) {
    DeviceBuffer<uint16_t> qkv(qkv_);
    DeviceBuffer<uint8_t> arena(cache_.bytes());
    DeviceBuffer<float> cosine(cosine_), sine(sine_);
    DeviceBuffer<PageId> page(page_);
    DeviceBuffer<uint8_t> slot(slot_);
    DeviceBuffer<int32_t> rotary_rows(rotary_rows_);
    kernels::cuda::RopeAppendArgs args;
    args.rows = c_.rows;
    args.q_heads = c_.q_heads;
    args.kv_heads = c_.kv_heads;
    args.head_dim = c_.head_dim;
    args.rotary_dim = c_.rotary_dim;
    args.style = c_.style;
    args.kv_type = c_.type;
    args.q = reinterpret_cast<__nv_bfloat16*>(qkv.get());
    args.k = args.q + KeyOffset();
    args.v = args.q + ValueOffset();
    args.q_stride = args.k_stride = args.v_stride = stride_;
    args.cosine = cosine.get();
    args.sine = sine.get();
    args.rotary_rows = c_.own_tables ? nullptr : rotary_rows.get();
    args.arena = reinterpret_cast<std::byte*>(arena.get());
    args.page = page.get();
    args.slot = slot.get();
    const bool supported = MissingRopeAppend(args).empty();
    Graph graph([&](cudaStream_t stream) { CHECK_CUDA(LaunchRopeAppend(args, stream)); });
    graph.Run();
    const std::vector<uint16_t> first = qkv.Download();
    const std::vector<uint8_t> first_pages = arena.Download();
    qkv.Upload(qkv_);
    arena.Poison();
    CHECK_CUDA(LaunchRopeAppend(args, nullptr));
    CHECK_CUDA(cudaDeviceSynchronize());
    const bool stable = first == qkv.Download() && first_pages == arena.Download() &&
                        qkv.CanaryIntact() && arena.CanaryIntact();
    CompareWith(first, first_pages);
    const Distance distance = Compare(got_.data(), want_.data(), got_.size());
    const bool e4m3 = c_.type != DType::kBF16;
    report.Case(supported && stable && contained_ && distance.l2 < (e4m3 ? 4e-2 : 3e-3),
                "rope %s rows %d heads %d/%d dim %d turning %d %s: l2 %.1e%s%s",
                e4m3 ? "e4m3" : "bf16", c_.rows, c_.q_heads, c_.kv_heads, c_.head_dim,
                c_.rotary_dim, c_.style == kernels::RopeStyle::kHalf ? "half" : "interleaved",
                distance.l2, stable ? "" : "  NOT REPEATABLE", contained_ ? "" : "  NOT CONTAINED");
  }

 private:
  static uint32_t Pages(const RopeCase& c) { return static_cast<uint32_t>(c.rows / 64 + 4); }
  [[nodiscard]] int KeyOffset() const { return c_.q_heads * c_.head_dim; }
  [[nodiscard]] int ValueOffset() const { return (c_.q_heads + c_.kv_heads) * c_.head_dim; }

  // Element `d` of the vector at `from`, rotated.
  [[nodiscard]] double Turned(int row, const uint16_t* from, int d) const {
    if (d >= c_.rotary_dim) return BitsToFloat(from[d]);
    const int half = c_.rotary_dim / 2;
    const bool in_halves = c_.style == kernels::RopeStyle::kHalf;
    const int pair = in_halves ? d % half : d / 2;
    const bool second = in_halves ? d >= half : d % 2 == 1;
    const double x = BitsToFloat(from[in_halves ? pair : pair * 2]);
    const double y = BitsToFloat(from[in_halves ? pair + half : pair * 2 + 1]);
    const int table_row = c_.own_tables ? row : rotary_rows_[row];
    const double cosine = cosine_[table_row * half + pair];
    const double sine = sine_[table_row * half + pair];
    return second ? y * cosine + x * sine : x * cosine - y * sine;
  }

  void CompareWith(const std::vector<uint16_t>& qkv, const std::vector<uint8_t>& pages) {
    std::vector<uint8_t> untouched = pages;
    const uint32_t width = cache_.format().element_bytes();
    for (int row = 0; row < c_.rows; ++row) {
      const uint16_t* from = &qkv_[static_cast<size_t>(row) * stride_];
      const uint16_t* to = &qkv[static_cast<size_t>(row) * stride_];
      for (int i = 0; i < stride_; ++i) {
        if (i >= KeyOffset()) {
          contained_ = contained_ && from[i] == to[i];
          continue;
        }
        want_.push_back(Turned(row, from + i / c_.head_dim * c_.head_dim, i % c_.head_dim));
        got_.push_back(BitsToFloat(to[i]));
      }
      if (!page_[row].valid()) continue;
      for (int head = 0; head < c_.kv_heads; ++head) {
        for (int d = 0; d < c_.head_dim; ++d) {
          for (const Plane plane : {Plane::kKey, Plane::kValue}) {
            const auto at = static_cast<size_t>(cache_.At(page_[row], head, plane, slot_[row], d) -
                                                cache_.bytes().data());
            const bool key = plane == Plane::kKey;
            const uint16_t* vector =
                from + (key ? KeyOffset() : ValueOffset()) + head * c_.head_dim;
            want_.push_back(key ? Turned(row, vector, d) : BitsToFloat(vector[d]));
            got_.push_back(
                width == 1 ? E4m3Value(pages[at])
                           : BitsToFloat(static_cast<uint16_t>(pages[at] | pages[at + 1] << 8)));
            std::fill_n(untouched.begin() + static_cast<std::ptrdiff_t>(at), width, 0xff);
          }
        }
      }
    }
    contained_ = contained_ && std::all_of(untouched.begin(), untouched.end(),
                                           [](uint8_t byte) { return byte == 0xff; });
  }

  const RopeCase& c_;
  Rng rng_;
  HostCache cache_;
  int stride_ = 0;
  PageId current_;
  std::vector<uint16_t> qkv_;
  std::vector<float> cosine_, sine_;
  std::vector<PageId> page_;
  std::vector<uint8_t> slot_;
  std::vector<int32_t> rotary_rows_;
  std::vector<float> got_;
  std::vector<double> want_;
  bool contained_ = true;
};

inline void CheckRopeAppend(Report& report) {
  using kernels::RopeStyle;
  uint64_t seed = 100;
  for (const DType type : {DType::kBF16, DType::kF8E4M3}) {
    for (const RopeStyle style : {RopeStyle::kHalf, RopeStyle::kInterleaved}) {
      for (const RopeCase& c : {
               RopeCase{1, 32, 8, 128, 128, style, type},
               RopeCase{130, 8, 2, 64, 64, style, type},
               RopeCase{67, 6, 3, 80, 20, style, type},
               RopeCase{65, 4, 4, 96, 24, style, type, true},
               RopeCase{33, 8, 1, 256, 64, style, type},
               RopeCase{300, 4, 2, 128, 128, style, type, true},
               RopeCase{5, 4, 2, 64, 0, style, type},
           }) {
        RopeWorld(c, seed++).Run(report);
      }
    }
  }
}

}  // namespace tessera::check
