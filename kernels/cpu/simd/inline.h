// How functions of sixteen-lane arithmetic are declared: always inlined, because a vector that
// crosses a call leaves its register.
#pragma once

#define TESSERA_SIMD static inline __attribute__((always_inline))
