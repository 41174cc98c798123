// Compiled for AVX2: it has templates of that set alone, as the files of kernels/cpu/avx2.
#include "tests/kernels/emulated_tiles.h"

#include "kernels/cpu/simd/avx2.h"
//
#include "kernels/cpu/simd/linear_tiles.h"
#include "kernels/cpu/simd/tile_attention.h"

namespace tessera::kernels::cpu {
namespace {

// As simd/amx.h. A tile that is not configured, or products whose sizes do not fit, end the test.
struct EmulatedTiles {
  struct Config {
    uint16_t row_bytes[8] = {};
    uint8_t rows[8] = {};
  };
  static thread_local Config config_;
  static thread_local int8_t data_[8][16][64];

  static void Need(bool holds) {
    if (!holds) __builtin_trap();
  }
  static void Configure(const Config& config) {
    config_ = config;
    for (int i = 0; i < 8; ++i) Need(config.rows[i] <= 16 && config.row_bytes[i] <= 64);
    __builtin_memset(data_, 0, sizeof(data_));
  }
  static void Release() { config_ = {}; }

  template <int kTile>
  static void Zero() {
    Need(config_.rows[kTile] > 0);
    __builtin_memset(data_[kTile], 0, sizeof(data_[kTile]));
  }
  template <int kTile>
  static void Load(const void* from, int64_t stride) {
    Zero<kTile>();
    for (int i = 0; i < config_.rows[kTile]; ++i) {
      __builtin_memcpy(data_[kTile][i], static_cast<const char*>(from) + i * stride,
                       config_.row_bytes[kTile]);
    }
  }
  template <int kTile>
  static void Store(void* to, int64_t stride) {
    Need(config_.rows[kTile] > 0);
    for (int i = 0; i < config_.rows[kTile]; ++i) {
      __builtin_memcpy(static_cast<char*>(to) + i * stride, data_[kTile][i],
                       config_.row_bytes[kTile]);
    }
  }
  template <int kC, int kA, int kB>
  static void DotI8U8() {
    Need(config_.rows[kC] == config_.rows[kA] && config_.row_bytes[kC] == config_.row_bytes[kB] &&
         config_.row_bytes[kA] == 4 * config_.rows[kB]);
    for (int row = 0; row < config_.rows[kC]; ++row) {
      for (int column = 0; column < config_.row_bytes[kC] / 4; ++column) {
        int32_t sum;
        __builtin_memcpy(&sum, &data_[kC][row][column * 4], 4);
        for (int k = 0; k < config_.row_bytes[kA]; ++k) {
          sum += data_[kA][row][k] * static_cast<uint8_t>(data_[kB][k / 4][column * 4 + k % 4]);
        }
        __builtin_memcpy(&data_[kC][row][column * 4], &sum, 4);
      }
    }
  }
  // As the manual has TDPBF16PS: operands and results that are subnormal are zeros, rounding is to
  // nearest even, products of even and of odd elements have a sum each, fused, and the two sums
  // together are added to C.
  template <int kC, int kA, int kB>
  static void DotBf16() {
    Need(config_.rows[kC] == config_.rows[kA] && config_.row_bytes[kC] == config_.row_bytes[kB] &&
         config_.row_bytes[kA] == 4 * config_.rows[kB]);
    for (int row = 0; row < config_.rows[kC]; ++row) {
      for (int column = 0; column < config_.row_bytes[kC] / 4; ++column) {
        float sums[2] = {};
        for (int k = 0; k < config_.row_bytes[kA] / 2; ++k) {
          const float a = Bf16At(&data_[kA][row][k * 2]);
          const float b = Bf16At(&data_[kB][k / 2][column * 4 + k % 2 * 2]);
          sums[k % 2] = Flushed(__builtin_fmaf(a, b, sums[k % 2]));
        }
        float c;
        __builtin_memcpy(&c, &data_[kC][row][column * 4], 4);
        c = Flushed(Flushed(c) + Flushed(sums[0] + sums[1]));
        __builtin_memcpy(&data_[kC][row][column * 4], &c, 4);
      }
    }
  }
  static float Flushed(float v) {
    return __builtin_fabsf(v) < 0x1p-126f ? __builtin_copysignf(0, v) : v;
  }
  static float Bf16At(const int8_t* p) {
    uint32_t bits = 0;
    __builtin_memcpy(reinterpret_cast<char*>(&bits) + 2, p, 2);
    float v;
    __builtin_memcpy(&v, &bits, 4);
    return Flushed(v);
  }
};
thread_local EmulatedTiles::Config EmulatedTiles::config_;
thread_local int8_t EmulatedTiles::data_[8][16][64];

}  // namespace

void EmulatedTileAttend(const AttentionCall& call) {
  TileAttention<Avx2, EmulatedTiles>::Run(call);
}
const LinearKernels kEmulatedTileLinear = TileLinearOf<Avx2, EmulatedTiles>();

}  // namespace tessera::kernels::cpu
