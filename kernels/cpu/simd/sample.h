// Passes over a row of logits.
#pragma once

#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/math.h"

namespace tessera::kernels::cpu {

template <class S>
struct SampleOps {
  using F = typename S::F;

  // Not-a-number reads as -infinity, +infinity as the largest float.
  TESSERA_SIMD F Clean(F x) {
    return S::Min(S::Set1(3.402823466e38f), S::Max(S::Set1(-__builtin_inff()), x));
  }
  // The first n of 16 logits, -infinity in the others.
  TESSERA_SIMD F LoadLogits(const float* p, int32_t n) {
    if (n >= 16) return Clean(S::Load(p));
    return S::KeepFirst(Clean(S::LoadN(p, n)), n, S::Set1(-__builtin_inff()));
  }

  static void ChunkMax(const float* logits, int32_t count, float* out) {
    for (int32_t i = 0; i < count; i += kLogitChunk) {
      F m = S::Set1(-__builtin_inff());
      for (int32_t j = i; j < i + kLogitChunk && j < count; j += 16) {
        m = S::Max(m, LoadLogits(logits + j, count - j));
      }
      out[i / kLogitChunk] = S::ReduceMax(m);
    }
  }

  static void Weights(const float* logits, int32_t count, float max, float inverse_temperature,
                      float* w, float* chunk_sum) {
    const F top = S::Set1(max);
    const F factor = S::Set1(inverse_temperature);
    for (int32_t i = 0; i < count; i += kLogitChunk) {
      F sum = S::Zero();
      for (int32_t j = i; j < i + kLogitChunk && j < count; j += 16) {
        const int32_t left = count - j;
        const F e = Math<S>::Exp(S::Mul(S::Sub(LoadLogits(logits + j, left), top), factor));
        sum = S::Add(sum, e);
        if (w == nullptr) continue;
        if (left >= 16) {
          S::Store(w + j, e);
        } else {
          S::StoreN(w + j, e, left);
        }
      }
      chunk_sum[i / kLogitChunk] = S::ReduceAdd(sum);
    }
  }

  static int32_t CountGreater(const float* logits, int32_t count, float bound) {
    const F limit = S::Set1(bound);
    int32_t greater = 0;
    for (int32_t i = 0; i < count; i += 16) {
      greater += S::CountGreater(LoadLogits(logits + i, count - i), limit);
    }
    return greater;
  }
};

}  // namespace tessera::kernels::cpu
