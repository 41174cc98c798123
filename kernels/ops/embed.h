// y[r] = table[tokens[r] + offset] * scale for the rows r that are named: the embedding lookup,
// from the packed layout that Linear reads (tied embeddings are stored and mapped once). kAdd adds
// it to y: learned positions, whose tokens are positions.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "config/foundation/ids.h"
#include "kernels/dtype.h"

namespace tessera::kernels {

struct EmbedTask {
  const std::byte* table = nullptr;  // packed [vocab, width]
  int32_t row_begin = 0;
  int32_t row_count = 0;
};

enum class EmbedMode : uint8_t { kStore, kAdd };

struct EmbedOp {
  static constexpr const char* kName = "embed";
  struct Desc {
    DType table = DType::kF32;
    int64_t width = 0;
    EmbedMode mode = EmbedMode::kStore;
  };
  struct Params {
    std::span<const EmbedTask> tasks;
    const TokenId* tokens = nullptr;  // [*], each < vocab - offset
    const int32_t* rows = nullptr;    // row of tokens and of y for each row; null: the same row
    float* y = nullptr;               // [*, width]
    int32_t width = 0;
    int32_t vocab = 0;
    float scale = 1.0f;  // applied after the conversion
    EmbedMode mode = EmbedMode::kStore;
    uint32_t offset = 0;
  };
};
[[nodiscard]] std::string Describe(const EmbedOp::Desc& desc);

}  // namespace tessera::kernels
