#include "kernels/synthetic_tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels {
namespace {

constexpr double kLargestInteger = 131070;
constexpr double kIntegerDeviation = 65536 / 1.7320508075688772;  // four uniform parts of 16 bits
constexpr double kLargestWeight = 60000;
// A thread below this much work costs more than it brings.
constexpr uint64_t kThreadWords = 1 << 18;

Status Bad(absl::StatusCode code, DType dtype, absl::string_view why) {
  return Error(code, {.what = absl::StrCat("no synthetic tensor of type ", InfoOf(dtype).name),
                      .why = std::string(why)});
}

bool HasHalfScales(DType dtype) { return HasPlanes(dtype) && InfoOf(dtype).block_elements > 1; }

double LargestCode(DType dtype, SyntheticAlgorithm algorithm) {
  if (algorithm == SyntheticAlgorithm::kConstant) return 1;
  if (HasHalfScales(dtype)) return 7;
  if (dtype == DType::kI8Channel) return 127;
  return HasPlanes(dtype) ? 448 : kLargestInteger;
}

SyntheticCodes CodesOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return SyntheticCodes::kF32;
    case DType::kBF16:
      return SyntheticCodes::kBF16;
    case DType::kI8Channel:
      return SyntheticCodes::kI8;
    case DType::kI4G128:
    case DType::kI4G64:
      return SyntheticCodes::kI4;
    case DType::kI4G128Zero:
    case DType::kI4G64Zero:
      return SyntheticCodes::kI4Zero;
    default:
      return SyntheticCodes::kF8;
  }
}

uint32_t ScaleWord(DType dtype, float scale) {
  if (HasHalfScales(dtype)) return F32ToF16(scale) * 0x10001u;
  uint32_t bits;
  std::memcpy(&bits, &scale, sizeof(bits));
  return bits;
}

// By value: what is written might otherwise be a field of what is read.
void FillWords(const SyntheticTensor tensor, std::span<std::byte> out, uint64_t begin,
               uint64_t end) {
  const uint64_t whole = std::min(end, out.size() / 4);
  for (uint64_t word = begin; word < whole; ++word) {
    const uint32_t value = SyntheticWord(tensor, word);
    std::memcpy(out.data() + word * 4, &value, 4);
  }
  if (whole == end) return;
  const uint32_t value = SyntheticWord(tensor, whole);
  std::memcpy(out.data() + whole * 4, &value, out.size() - whole * 4);
}

}  // namespace

double SyntheticDeviation(DType dtype) {
  if (dtype == DType::kF32 || dtype == DType::kBF16) return kIntegerDeviation;
  if (!HasPlanes(dtype)) return 0;
  const double exact =
      kIntegerDeviation * LargestCode(dtype, SyntheticAlgorithm::kNormal) / (1 << 17);
  // Rounding to integers adds a variance of 1/12.
  return InfoOf(dtype).block_elements > 1 || dtype == DType::kI8Channel
             ? std::sqrt(exact * exact + 1.0 / 12)
             : exact;
}

float SyntheticScale(DType dtype, double scale) {
  const auto nearest = static_cast<float>(scale);
  return HasHalfScales(dtype) ? F16ToF32(F32ToF16(nearest)) : nearest;
}

StatusOr<SyntheticTensor> MakeSyntheticTensor(DType dtype, uint64_t rows, uint64_t columns,
                                              SyntheticAlgorithm algorithm, uint64_t seed,
                                              float scale) {
  if (SyntheticDeviation(dtype) == 0) {
    return Bad(absl::StatusCode::kUnimplemented, dtype,
               "the types are F32, BF16 and those with planes");
  }
  const std::optional<uint64_t> bytes = StorageBytes(dtype, rows, columns);
  if (!bytes.has_value() || *bytes == 0 || *bytes > INT64_MAX) {
    return Bad(absl::StatusCode::kInvalidArgument, dtype,
               absl::StrCat("[", rows, ", ", columns, "] is empty, too large, or its columns are ",
                            "no multiple of ", InfoOf(dtype).block_elements));
  }
  if (algorithm == SyntheticAlgorithm::kConstant && HasPlanes(dtype)) {
    return Bad(absl::StatusCode::kInvalidArgument, dtype, "constants have type F32 or BF16");
  }
  const double largest = scale * LargestCode(dtype, algorithm);
  // Written so that a NaN fails.
  if (!(scale >= 0x1p-100f && scale <= 0x1p16f && largest <= kLargestWeight) ||
      SyntheticScale(dtype, scale) != scale || (HasHalfScales(dtype) && scale < 0x1p-14f)) {
    return Bad(
        absl::StatusCode::kInvalidArgument, dtype,
        absl::StrCat("the scale ", scale, " is outside its limits, or no scale of the type"));
  }
  SyntheticTensor tensor{.algorithm = algorithm,
                         .codes = CodesOf(dtype),
                         .zero_group = std::max(1u, ScaleGroup(dtype)),
                         .scale_word = ScaleWord(dtype, scale),
                         .scale = scale,
                         .seed = seed,
                         .codes_bytes = *bytes,
                         .bytes = *bytes};
  if (HasPlanes(dtype)) {
    const WeightPlanes planes = PlanesOf(dtype, rows, columns);
    tensor.codes_bytes = planes.codes_bytes;
    tensor.scales_offset = planes.scales_offset;
    tensor.scales_bytes = planes.scales_bytes;
    tensor.zeros_offset = planes.zeros_offset;
    tensor.zeros_bytes = planes.zeros_bytes;
  }
  return tensor;
}

void FillSynthetic(const SyntheticTensor& tensor, std::span<std::byte> out, int threads) {
  const uint64_t words = (out.size() + 3) / 4;
  const uint64_t shares = std::clamp<uint64_t>(words / kThreadWords, 1, std::max(threads, 1));
  std::vector<std::thread> others;
  for (uint64_t i = 1; i < shares; ++i) {
    others.emplace_back(
        [&, i] { FillWords(tensor, out, words * i / shares, words * (i + 1) / shares); });
  }
  FillWords(tensor, out, 0, words / shares);
  for (std::thread& thread : others) thread.join();
}

}  // namespace tessera::kernels
