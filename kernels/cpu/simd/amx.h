// Tile registers of AMX: eight arrays of up to 16 rows x 64 bytes, and their products.
//
// Statements in assembler, because GCC 12's own functions do not say what they touch: its
// _tile_loadconfig names 8 of the 64 bytes that are read (stores to the others are dropped), and
// its loads and stores no memory at all. All of them are volatile, so they keep their order; no
// compiler keeps values of its own in tiles.
//
// A C += A x B of tiles: A [rows][k], B [k / 4][columns][4] of bytes (bf16: [k / 2][columns][2]),
// C [rows][columns] of 32 bits; rows, columns and k as the tiles are configured. Sums of bytes are
// exact modulo 2^32. Where a source has no bits of a row, they count as zeros.
#pragma once

#if defined(__AVX512F__)
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/simd/inline.h"

namespace tessera::kernels::cpu {

struct Amx {
  // What LDTILECFG reads: bytes of a row and rows of each tile; both 0: not used.
  struct alignas(64) Config {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
  static_assert(sizeof(Config) == 64);

  // Of this thread, until the next Configure or Release. All tiles become zeros.
  TESSERA_SIMD void Configure(const Config& config) {
    __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  // A thread that keeps tiles pays for them when it is switched.
  TESSERA_SIMD void Release() { __asm__ volatile("tilerelease" : : : "memory"); }

  template <int kTile>
  TESSERA_SIMD void Zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  // Rows `stride` bytes apart.
  template <int kTile>
  TESSERA_SIMD void Load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(from), "r"(stride), "i"(kTile)
                     : "memory");
  }
  template <int kTile>
  TESSERA_SIMD void Store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(to), "r"(stride), "i"(kTile)
                     : "memory");
  }
  // C += A x B, A of signed bytes, B of unsigned ones.
  template <int kC, int kA, int kB>
  TESSERA_SIMD void DotI8U8() {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
  // C += A x B of bf16, sums in float32: subnormal values count as zeros, and the order of a sum's
  // terms is the instruction's.
  template <int kC, int kA, int kB>
  TESSERA_SIMD void DotBf16() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
};

}  // namespace tessera::kernels::cpu
#endif
