// One cuBLASLt product and the algorithm that runs it, in numbers that outlive a process. Without a
// header of CUDA, so that tables of them are read where there is no device. Internal to linear/.
#pragma once

#include <array>
#include <compare>
#include <cstdint>

namespace tessera::kernels::cuda {

enum class ProductOperands : uint8_t {
  kBf16,
  kF8Outer,  // e4m3; scales [out] and [rows]
  kF8Block,  // e4m3; scales [ceil(out/128), ceil(in/128) padded to 4] and [ceil(in/128), rows];
             // rows a multiple of 4
};
enum class ProductOutput : uint8_t { kBf16, kFloat };
enum class ProductAddition : uint8_t { kNone, kC };    // d = product + c, c of d's type
enum class ProductBias : uint8_t { kNone, kChannel };  // bf16 [out], with a bf16 output

struct ProductKind {
  ProductOperands operands = ProductOperands::kBf16;
  ProductOutput output = ProductOutput::kBf16;
  ProductAddition addition = ProductAddition::kNone;
  ProductBias bias = ProductBias::kNone;
  int32_t out = 0;
  int32_t in = 0;

  auto operator<=>(const ProductKind&) const = default;
};

// Values of cublasLtMatmulAlgoConfigAttributes_t, at the attribute's own number.
inline constexpr int kAlgorithmAttributes = 9;
using AlgorithmConfig = std::array<uint32_t, kAlgorithmAttributes>;

// The algorithm of a kind for the rows of one bucket (GemmPlanner::RowBucket); good for the device,
// driver and library that it was chosen with.
struct GemmAlgorithm {
  ProductKind kind;
  int32_t bucket = 0;
  AlgorithmConfig config{};

  auto operator<=>(const GemmAlgorithm&) const = default;
};

}  // namespace tessera::kernels::cuda
