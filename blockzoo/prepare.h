// Makes the layouts that a backend reads before the chain is first served.
#pragma once

#include "blockzoo/manifest.h"
#include "blockzoo/zoo.h"
#include "kernels/backend.h"

namespace tessera::blockzoo {

// Builds the derived form of every Linear weight of `chain` that the zoo lacks, one tensor in
// memory at a time. UNIMPLEMENTED when the backend has no kernel for a weight. Safe beside serving
// processes.
[[nodiscard]] Status PrepareDerived(Zoo& zoo, const ChainManifest& chain,
                                    const kernels::Backend& backend);

}  // namespace tessera::blockzoo
