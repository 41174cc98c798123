// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace tessera::kernels::cpu {

[[nodiscard]] inline std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter,
                                                    std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

// In [0, 1), a multiple of 2^-53, of nothing but its arguments.
[[nodiscard]] inline double Uniform(uint64_t seed, uint64_t counter) {
  const std::array<uint32_t, 4> r =
      Philox({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0},
             {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = uint64_t{r[0]} << 32 | r[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace tessera::kernels::cpu
