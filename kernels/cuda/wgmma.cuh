// Hopper's matrix product of a warpgroup (128 consecutive threads whose first warp's index is a
// multiple of 4): d += a b with a [64 x 16], b [16 x N] and d float32 [64 x N]. Device code for
// sm_90a only.
//
// d: lane l of warp w holds, of rows 16 w + l / 4 (+ 8), the columns 8 i + 2 (l % 4) + {0, 1} as
// d[4 i + {0, 1}] (+ 2). a in registers is the fragment of mma.m16n8k16: {row, row + 8} by
// {column, column + 8}, two elements a register. b is always in shared memory, a may be; both are
// named by descriptors.
//
// Order of use: WgmmaFence, products, WgmmaCommit, ..., WgmmaWait<n>, then WgmmaPin on each array
// of accumulators (and of a in registers) before C++ reads or writes it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {

// Names an operand in shared memory whose rows of `kWidth` bytes (128, 64 or 32) lie swizzled as in
// kv_layout.h; eight rows are one atom of 8 * kWidth bytes, aligned to its size. `stride_bytes` is
// the distance of atoms along the rows (8 * kWidth where rows are dense).
//   Row = a row of a or a column of b, columns along k ("k-major"): atoms follow one another along
//     M or N at stride_bytes; a step of 16 in k adds 32 to the address; `leading_bytes` is unused.
//   Row = one k, columns along N ("transposed" b): atoms follow one another along k at
//     stride_bytes and along N (every kWidth / 2 columns) at leading_bytes; a step of 16 in k adds
//     16 rows to the address.
template <int kWidth>
__device__ __forceinline__ uint64_t WgmmaDescriptor(uint32_t shared_address, uint32_t stride_bytes,
                                                    uint32_t leading_bytes = 16) {
  static_assert(kWidth == 128 || kWidth == 64 || kWidth == 32);
  constexpr uint64_t kSwizzle = kWidth == 128 ? 1 : kWidth == 64 ? 2 : 3;
  return (shared_address & 0x3ffff) >> 4 | uint64_t{leading_bytes >> 4} << 16 |
         uint64_t{stride_bytes >> 4} << 32 | kSwizzle << 62;
}
// The same operand `bytes` (a multiple of 16) further on.
__device__ __forceinline__ uint64_t WgmmaAdvance(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

// Orders this warp's earlier register accesses before the products that follow.
__device__ __forceinline__ void WgmmaFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kPending committed groups are unfinished.
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving accesses to registers of a product across this point.
template <int kCount>
__device__ __forceinline__ void WgmmaPin(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void WgmmaPin(int (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void WgmmaPin(uint32_t (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

// Wgmma<N>::Shared<T>(d, a, b, accumulate) and Wgmma<N>::Registers<T>(d, a, b, accumulate): T is
// __nv_bfloat16 or __half; d is overwritten where `!accumulate`. kTransposed: b lies transposed.
// Wgmma<N>::SharedE4m3: e4m3, a step of 32 in k, which are as many bytes; its sums are rounded to
// fewer bits than a float has.
template <int kN>
struct Wgmma;

// Registers as the assembler counts them, and as the compiler does.
#define TESSERA_OUT4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define TESSERA_OUT16(d, i) \
  TESSERA_OUT4(d, i), TESSERA_OUT4(d, i + 4), TESSERA_OUT4(d, i + 8), TESSERA_OUT4(d, i + 12)
#define TESSERA_OUT64(d, i) \
  TESSERA_OUT16(d, i), TESSERA_OUT16(d, i + 16), TESSERA_OUT16(d, i + 32), TESSERA_OUT16(d, i + 48)
#define TESSERA_REGS4 "%0, %1, %2, %3"
#define TESSERA_REGS8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define TESSERA_REGS12 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11"
#define TESSERA_REGS16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define TESSERA_REGS20 TESSERA_REGS16 ", %16, %17, %18, %19"
#define TESSERA_REGS24 TESSERA_REGS16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define TESSERA_REGS28 TESSERA_REGS16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27"
#define TESSERA_REGS32                                                            \
  TESSERA_REGS16                                                                  \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, " \
  "%31"
#define TESSERA_REGS36 TESSERA_REGS32 ", %32, %33, %34, %35"
#define TESSERA_REGS40 TESSERA_REGS36 ", %36, %37, %38, %39"
#define TESSERA_REGS48                                                            \
  TESSERA_REGS32                                                                  \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, " \
  "%47"
#define TESSERA_REGS56 TESSERA_REGS48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define TESSERA_REGS64                                                            \
  TESSERA_REGS48                                                                  \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, " \
  "%63"
#define TESSERA_REGS80                                                            \
  TESSERA_REGS64                                                                  \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, " \
  "%79"
#define TESSERA_REGS96                                                            \
  TESSERA_REGS80                                                                  \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, " \
  "%95"
#define TESSERA_REGS112                                                                      \
  TESSERA_REGS96                                                                             \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, " \
  "%111"
#define TESSERA_REGS128                                                                    \
  TESSERA_REGS112                                                                          \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, " \
  "%126, %127"
// The instructions' text: where the operands are, counted from the first register of d.
#define TESSERA_WGMMA_SHARED(n, type, registers, a, b, accumulate, transposed)                  \
  "{\n.reg .pred p;\nsetp.ne.b32 p, %" #accumulate ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n \
  "k16.f32." type "." type " {" registers "}, %" #a ", %" #b ", p, 1, 1, 0, %" #transposed ";\n}"
#define TESSERA_WGMMA_E4M3(n, registers, a, b, accumulate)                                      \
  "{\n.reg .pred p;\nsetp.ne.b32 p, %" #accumulate ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n \
  "k32.f32.e4m3.e4m3 {" registers "}, %" #a ", %" #b ", p, 1, 1;\n}"
#define TESSERA_WGMMA_REGISTERS(n, type, registers, a0, a1, a2, a3, b, accumulate, transposed)  \
  "{\n.reg .pred p;\nsetp.ne.b32 p, %" #accumulate ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n \
  "k16.f32." type "." type " {" registers "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b   \
  ", p, 1, 1, %" #transposed ";\n}"

// `i0` ...: the numbers after those of d's registers.
#define TESSERA_WGMMA(n, registers, outputs, i0, i1, i2, i3, i4, i5, i6)                         \
  template <>                                                                                    \
  struct Wgmma<n> {                                                                              \
    template <typename T, int kTransposed = 0>                                                   \
    static __device__ __forceinline__ void Shared(float (&d)[n / 2], uint64_t a, uint64_t b,     \
                                                  bool accumulate) {                             \
      if constexpr (std::is_same_v<T, __half>) {                                                 \
        asm volatile(TESSERA_WGMMA_SHARED(n, "f16", registers, i0, i1, i2, i3)                   \
                     : outputs                                                                   \
                     : "l"(a), "l"(b), "r"(int{accumulate}), "n"(kTransposed)                    \
                     : "memory");                                                                \
      } else {                                                                                   \
        asm volatile(TESSERA_WGMMA_SHARED(n, "bf16", registers, i0, i1, i2, i3)                  \
                     : outputs                                                                   \
                     : "l"(a), "l"(b), "r"(int{accumulate}), "n"(kTransposed)                    \
                     : "memory");                                                                \
      }                                                                                          \
    }                                                                                            \
    static __device__ __forceinline__ void SharedE4m3(float (&d)[n / 2], uint64_t a, uint64_t b, \
                                                      bool accumulate) {                         \
      asm volatile(TESSERA_WGMMA_E4M3(n, registers, i0, i1, i2)                                  \
                   : outputs                                                                     \
                   : "l"(a), "l"(b), "r"(int{accumulate})                                        \
                   : "memory");                                                                  \
    }                                                                                            \
    template <typename T, int kTransposed = 0>                                                   \
    static __device__ __forceinline__ void Registers(float (&d)[n / 2], const uint32_t (&a)[4],  \
                                                     uint64_t b, bool accumulate) {              \
      if constexpr (std::is_same_v<T, __half>) {                                                 \
        asm volatile(TESSERA_WGMMA_REGISTERS(n, "f16", registers, i0, i1, i2, i3, i4, i5, i6)    \
                     : outputs                                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{accumulate}), \
                       "n"(kTransposed)                                                          \
                     : "memory");                                                                \
      } else {                                                                                   \
        asm volatile(TESSERA_WGMMA_REGISTERS(n, "bf16", registers, i0, i1, i2, i3, i4, i5, i6)   \
                     : outputs                                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{accumulate}), \
                       "n"(kTransposed)                                                          \
                     : "memory");                                                                \
      }                                                                                          \
    }                                                                                            \
  };
#define TESSERA_OUTPUTS4 TESSERA_OUT4(d, 0)
#define TESSERA_OUTPUTS8 TESSERA_OUT4(d, 0), TESSERA_OUT4(d, 4)
#define TESSERA_OUTPUTS12 TESSERA_OUT4(d, 0), TESSERA_OUT4(d, 4), TESSERA_OUT4(d, 8)
#define TESSERA_OUTPUTS16 TESSERA_OUT16(d, 0)
#define TESSERA_OUTPUTS20 TESSERA_OUT16(d, 0), TESSERA_OUT4(d, 16)
#define TESSERA_OUTPUTS24 TESSERA_OUT16(d, 0), TESSERA_OUT4(d, 16), TESSERA_OUT4(d, 20)
#define TESSERA_OUTPUTS28 \
  TESSERA_OUT16(d, 0), TESSERA_OUT4(d, 16), TESSERA_OUT4(d, 20), TESSERA_OUT4(d, 24)
#define TESSERA_OUTPUTS32 TESSERA_OUT16(d, 0), TESSERA_OUT16(d, 16)
#define TESSERA_OUTPUTS36 TESSERA_OUTPUTS32, TESSERA_OUT4(d, 32)
#define TESSERA_OUTPUTS40 TESSERA_OUTPUTS36, TESSERA_OUT4(d, 36)
#define TESSERA_OUTPUTS48 TESSERA_OUT16(d, 0), TESSERA_OUT16(d, 16), TESSERA_OUT16(d, 32)
#define TESSERA_OUTPUTS56 TESSERA_OUTPUTS48, TESSERA_OUT4(d, 48), TESSERA_OUT4(d, 52)
#define TESSERA_OUTPUTS64 TESSERA_OUT64(d, 0)
#define TESSERA_OUTPUTS96 TESSERA_OUT64(d, 0), TESSERA_OUT16(d, 64), TESSERA_OUT16(d, 80)
#define TESSERA_OUTPUTS128 TESSERA_OUT64(d, 0), TESSERA_OUT64(d, 64)
TESSERA_WGMMA(8, TESSERA_REGS4, TESSERA_OUTPUTS4, 4, 5, 6, 7, 8, 9, 10)
TESSERA_WGMMA(16, TESSERA_REGS8, TESSERA_OUTPUTS8, 8, 9, 10, 11, 12, 13, 14)
TESSERA_WGMMA(24, TESSERA_REGS12, TESSERA_OUTPUTS12, 12, 13, 14, 15, 16, 17, 18)
TESSERA_WGMMA(32, TESSERA_REGS16, TESSERA_OUTPUTS16, 16, 17, 18, 19, 20, 21, 22)
TESSERA_WGMMA(40, TESSERA_REGS20, TESSERA_OUTPUTS20, 20, 21, 22, 23, 24, 25, 26)
TESSERA_WGMMA(48, TESSERA_REGS24, TESSERA_OUTPUTS24, 24, 25, 26, 27, 28, 29, 30)
TESSERA_WGMMA(56, TESSERA_REGS28, TESSERA_OUTPUTS28, 28, 29, 30, 31, 32, 33, 34)
TESSERA_WGMMA(64, TESSERA_REGS32, TESSERA_OUTPUTS32, 32, 33, 34, 35, 36, 37, 38)
TESSERA_WGMMA(72, TESSERA_REGS36, TESSERA_OUTPUTS36, 36, 37, 38, 39, 40, 41, 42)
TESSERA_WGMMA(80, TESSERA_REGS40, TESSERA_OUTPUTS40, 40, 41, 42, 43, 44, 45, 46)
TESSERA_WGMMA(96, TESSERA_REGS48, TESSERA_OUTPUTS48, 48, 49, 50, 51, 52, 53, 54)
TESSERA_WGMMA(112, TESSERA_REGS56, TESSERA_OUTPUTS56, 56, 57, 58, 59, 60, 61, 62)
TESSERA_WGMMA(128, TESSERA_REGS64, TESSERA_OUTPUTS64, 64, 65, 66, 67, 68, 69, 70)
TESSERA_WGMMA(192, TESSERA_REGS96, TESSERA_OUTPUTS96, 96, 97, 98, 99, 100, 101, 102)
TESSERA_WGMMA(256, TESSERA_REGS128, TESSERA_OUTPUTS128, 128, 129, 130, 131, 132, 133, 134)

// WgmmaS8<N>::Registers(d, a, b, accumulate): signed bytes, a step of 32 in k, d [64 x N] int32. a
// is the fragment of mma.m16n8k32.
template <int kN>
struct WgmmaS8;
#define TESSERA_INT4(d, i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define TESSERA_INT8(d, i) TESSERA_INT4(d, i), TESSERA_INT4(d, i + 4)
#define TESSERA_INT16(d, i) TESSERA_INT8(d, i), TESSERA_INT8(d, i + 8)
#define TESSERA_INT32(d, i) TESSERA_INT16(d, i), TESSERA_INT16(d, i + 16)
#define TESSERA_INTS4 TESSERA_INT4(d, 0)
#define TESSERA_INTS8 TESSERA_INT8(d, 0)
#define TESSERA_INTS16 TESSERA_INT16(d, 0)
#define TESSERA_INTS32 TESSERA_INT32(d, 0)
#define TESSERA_WGMMA_S8(n, registers, outputs, i0, i1, i2, i3, i4, i5)                       \
  template <>                                                                                 \
  struct WgmmaS8<n> {                                                                         \
    static __device__ __forceinline__ void Registers(int (&d)[n / 2], const uint32_t (&a)[4], \
                                                     uint64_t b, bool accumulate) {           \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #i5                                   \
                   ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k32.s32.s8.s8 {" registers   \
                   "}, {%" #i0 ", %" #i1 ", %" #i2 ", %" #i3 "}, %" #i4 ", p;\n}"             \
                   : outputs                                                                  \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{accumulate}) \
                   : "memory");                                                               \
    }                                                                                         \
  };
TESSERA_WGMMA_S8(8, TESSERA_REGS4, TESSERA_INTS4, 4, 5, 6, 7, 8, 9)
TESSERA_WGMMA_S8(16, TESSERA_REGS8, TESSERA_INTS8, 8, 9, 10, 11, 12, 13)
TESSERA_WGMMA_S8(32, TESSERA_REGS16, TESSERA_INTS16, 16, 17, 18, 19, 20, 21)
TESSERA_WGMMA_S8(64, TESSERA_REGS32, TESSERA_INTS32, 32, 33, 34, 35, 36, 37)
#undef TESSERA_INT4
#undef TESSERA_INT8
#undef TESSERA_INT16
#undef TESSERA_INT32
#undef TESSERA_INTS4
#undef TESSERA_INTS8
#undef TESSERA_INTS16
#undef TESSERA_INTS32
#undef TESSERA_WGMMA_S8
#undef TESSERA_OUT4
#undef TESSERA_OUT16
#undef TESSERA_OUT64
#undef TESSERA_WGMMA_SHARED
#undef TESSERA_WGMMA_E4M3
#undef TESSERA_WGMMA_REGISTERS
#undef TESSERA_WGMMA
#undef TESSERA_REGS4
#undef TESSERA_REGS8
#undef TESSERA_REGS12
#undef TESSERA_REGS16
#undef TESSERA_REGS20
#undef TESSERA_REGS24
#undef TESSERA_REGS28
#undef TESSERA_REGS32
#undef TESSERA_REGS36
#undef TESSERA_REGS40
#undef TESSERA_REGS48
#undef TESSERA_REGS56
#undef TESSERA_REGS64
#undef TESSERA_REGS96
#undef TESSERA_REGS128
#undef TESSERA_REGS80
#undef TESSERA_REGS112
#undef TESSERA_OUTPUTS4
#undef TESSERA_OUTPUTS8
#undef TESSERA_OUTPUTS12
#undef TESSERA_OUTPUTS16
#undef TESSERA_OUTPUTS20
#undef TESSERA_OUTPUTS24
#undef TESSERA_OUTPUTS28
#undef TESSERA_OUTPUTS32
#undef TESSERA_OUTPUTS36
#undef TESSERA_OUTPUTS40
#undef TESSERA_OUTPUTS48
#undef TESSERA_OUTPUTS56
#undef TESSERA_OUTPUTS64
#undef TESSERA_OUTPUTS96
#undef TESSERA_OUTPUTS128

}  // namespace tessera::kernels::cuda
