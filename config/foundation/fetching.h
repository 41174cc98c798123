// A function that does nothing but bring memory near (__builtin_prefetch).
#pragma once

// Where such a function is not inlined from the start, GCC 12 takes it for one that does nothing
// and drops its calls.
#define TESSERA_FETCHING inline __attribute__((always_inline))
