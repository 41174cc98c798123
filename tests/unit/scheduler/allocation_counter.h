// Counts calls of operator new on the calling thread.
#pragma once

#include <cstdint>

namespace tessera::testing {

void StartCountingAllocations();
// How many there were since the start.
uint64_t StopCountingAllocations();

}  // namespace tessera::testing
