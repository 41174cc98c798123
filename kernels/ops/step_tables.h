// What a step needs before its first block: its tokens and, where the cache's page tables do not
// lie in the kernels' memory, what changed in their copies.
#pragma once

#include <cstdint>
#include <string>

#include "config/foundation/ids.h"

namespace tessera::kernels {

// One entry of a copied page table.
struct TableUpdate {
  uint32_t index;
  PageId page;
};

struct StepTablesOp {
  static constexpr const char* kName = "step_tables";
  struct Desc {};
  // A token that the step before draws is not known to the host when this one is planned: its row
  // names the slot where the sampler leaves it.
  struct Params {
    const TokenId* tokens = nullptr;  // [rows], as far as the host knows them
    const int32_t* slots = nullptr;   // [rows] whose drawn token it is; -1: `tokens` holds it
    const TokenId* drawn = nullptr;   // [slots]
    TokenId* resolved = nullptr;      // [rows]; may be `tokens`
    int32_t rows = 0;
    const TableUpdate* updates = nullptr;  // [update_count], each entry at most once
    int32_t update_count = 0;
    PageId* tables = nullptr;
  };
};
[[nodiscard]] std::string Describe(const StepTablesOp::Desc& desc);

}  // namespace tessera::kernels
