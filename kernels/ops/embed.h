// y[r] = table[tokens[r]] for the rows r that are named: the embedding lookup, from the packed
// layout that Linear reads (tied embeddings are stored and mapped once).
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

struct EmbedOp {
  static constexpr const char* kName = "embed";
  struct Desc {
    DType table = DType::kF32;
    int64_t width = 0;
  };
  struct Params {
    std::span<const EmbedTask> tasks;
    const TokenId* tokens = nullptr;  // [*], each < vocab
    const int32_t* rows = nullptr;    // row of tokens and of y for each row; null: the same row
    float* y = nullptr;               // [*, width]
    int32_t width = 0;
    int32_t vocab = 0;
    float scale = 1.0f;  // applied after the conversion
  };
};
[[nodiscard]] std::string Describe(const EmbedOp::Desc& desc);

}  // namespace tessera::kernels
