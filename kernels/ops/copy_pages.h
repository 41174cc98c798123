// Copies whole pages inside the arena: the open pages of a fork.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "config/foundation/ids.h"

namespace tessera::kernels {

struct PageCopy {
  PageId from;
  PageId to;
  uint64_t bytes;  // a multiple of 16
};

struct CopyPagesOp {
  static constexpr const char* kName = "copy_pages";
  struct Desc {};
  struct Params {
    std::byte* arena = nullptr;
    std::span<const PageCopy> copies;  // host memory; no page is both source and target
  };
};
[[nodiscard]] std::string Describe(const CopyPagesOp::Desc& desc);

}  // namespace tessera::kernels
