// What meets e4m3 pages in f16, which holds every e4m3 exactly. Device code.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace tessera::kernels::cuda {

// Two e4m3 in the low 16 bits to two f16.
__device__ __forceinline__ uint32_t HalfFromE4m3(uint32_t pair) {
  uint32_t result;
#if __CUDA_ARCH__ >= 890
  asm("{\n.reg .b16 low;\ncvt.u16.u32 low, %1;\ncvt.rn.f16x2.e4m3x2 %0, low;\n}\n"
      : "=r"(result)
      : "r"(pair));
#else
  // The exponent bias differs by 8; subnormals come out right, not-a-number becomes 480.
  const uint32_t spread = __byte_perm(pair, 0, 0x1404);
  const uint32_t bits = (spread & 0x80008000u) | (spread & 0x7f007f00u) >> 1;
  const __half2 scaled = __hmul2(*reinterpret_cast<const __half2*>(&bits), __float2half2_rn(256.f));
  result = *reinterpret_cast<const uint32_t*>(&scaled);
#endif
  return result;
}

// Four e4m3 to twice two f16.
__device__ __forceinline__ void HalfFromE4m3(uint32_t four, uint32_t& low, uint32_t& high) {
#if __CUDA_ARCH__ >= 890
  asm("{\n.reg .b16 a, b;\nmov.b32 {a, b}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, a;\ncvt.rn.f16x2.e4m3x2 %1, b;\n}\n"
      : "=r"(low), "=r"(high)
      : "r"(four));
#else
  low = HalfFromE4m3(four);
  high = HalfFromE4m3(four >> 16);
#endif
}

// Two bf16 to two f16: past f16's range they saturate, not-a-number stays so.
__device__ __forceinline__ uint32_t HalfFromBf16(uint32_t pair) {
  uint32_t result;
  asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;"
      : "=r"(result)
      : "f"(__uint_as_float(pair & 0xffff0000u)), "f"(__uint_as_float(pair << 16)));
  return result;
}

}  // namespace tessera::kernels::cuda
