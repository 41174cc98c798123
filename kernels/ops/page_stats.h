// Sealing a page: its key statistics (minimum and maximum of each logical page) are a pure function
// of its keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "config/foundation/ids.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kernels {

struct PageStatsOp {
  static constexpr const char* kName = "page_stats";
  struct Desc {
    KvFormat kv;  // with key_statistics
  };
  struct Params {
    KvFormat kv;
    std::byte* arena = nullptr;
    std::span<const PageId> pages;  // full pages to seal
  };
};
[[nodiscard]] std::string Describe(const PageStatsOp::Desc& desc);

}  // namespace tessera::kernels
