// A small Llama checkpoint whose projections are stored in one of the hub's quantized layouts,
// packed element by element as the layouts are defined, with the values that it means.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/dtype.h"
#include "tests/support/tiny_checkpoint.h"

namespace tessera::testing {

struct QuantizedLayout {
  const char* name;
  const char* config;  // quantization_config's fields
  enum Kind : uint8_t { kFp8, kInt8, kPacked8, kPacked4, kAwq, kGptq } kind;
  uint64_t group = 0;      // columns that share a scale; 0: the row; 1: the tensor
  uint64_t row_group = 1;  // rows that share a scale
  const char* scale_suffix = "_scale";
  const char* scale_type = "F32";
  bool zeros = false;
  int stored_less = 0;  // of zero points
};

inline const std::vector<QuantizedLayout>& QuantizedLayouts() {
  using L = QuantizedLayout;
  static const std::vector<L> kLayouts = {
      {"fp8-block", R"("quant_method":"fp8","weight_block_size":[128,128],"fmt":"e4m3")", L::kFp8,
       128, 128, "_scale_inv", "F32"},
      {"fp8-block-bf16", R"("quant_method":"fp8","weight_block_size":[128,128])", L::kFp8, 128, 128,
       "_scale_inv", "BF16"},
      {"fp8-tensor", R"("quant_method":"fp8","activation_scheme":"static")", L::kFp8, 1, 1,
       "_scale", "F32"},
      {"ct-fp8-channel", R"("quant_method":"compressed-tensors","format":"float-quantized")",
       L::kFp8, 0, 1, "_scale", "BF16"},
      {"ct-fp8-tensor", R"("quant_method":"compressed-tensors","format":"naive-quantized")",
       L::kFp8, 1, 1, "_scale", "F32"},
      {"ct-int8", R"("quant_method":"compressed-tensors","format":"int-quantized")", L::kInt8, 0, 1,
       "_scale", "BF16"},
      {"ct-packed8", R"("quant_method":"compressed-tensors","format":"pack-quantized")",
       L::kPacked8, 0, 1, "_scale", "F16"},
      {"ct-packed4-128", R"("quant_method":"compressed-tensors","format":"pack-quantized")",
       L::kPacked4, 128, 1, "_scale", "BF16"},
      {"ct-packed4-64-zero", R"("quant_method":"compressed-tensors","format":"pack-quantized")",
       L::kPacked4, 64, 1, "_scale", "F16", true},
      {"ct-packed4-channel", R"("quant_method":"compressed-tensors","format":"pack-quantized")",
       L::kPacked4, 0, 1, "_scale", "F16"},
      {"awq", R"("quant_method":"awq","bits":4,"group_size":128,"version":"gemm")", L::kAwq, 128, 1,
       "", "F16", true},
      {"awq-64", R"("quant_method":"awq","w_bit":4,"version":"GEMM")", L::kAwq, 64, 1, "", "F16",
       true},
      {"gptq", R"("quant_method":"gptq","bits":4,"desc_act":false,"sym":true)", L::kGptq, 128, 1,
       "", "F16", false, 1},
      {"gptq-zero", R"("quant_method":"gptq","bits":4,"checkpoint_format":"gptq")", L::kGptq, 64, 1,
       "", "F16", true, 1},
      {"gptq-v2", R"("quant_method":"gptq","bits":4,"checkpoint_format":"gptq_v2")", L::kGptq, 128,
       1, "", "BF16", true, 0},
      {"gptq-row", R"("quant_method":"gptq","bits":4,"group_size":-1)", L::kGptq, 0, 1, "", "F16",
       true, 1},
  };
  return kLayouts;
}

// Widths of a model whose projections every layout can hold.
inline TinyCheckpoint QuantizableTiny() {
  return {.layers = 2, .width = 128, .hidden = 384, .q_heads = 8, .kv_heads = 8, .head_dim = 16};
}

// One projection. Codes, scales and zero points are pseudo-random.
class QuantizedWeight {
 public:
  QuantizedWeight(const QuantizedLayout& layout, uint64_t out, uint64_t in, uint32_t seed)
      : layout_(layout), out_(out), in_(in), state_(seed * 0x9e3779b97f4a7c15ull + 7) {
    column_groups_ = layout.group > 1 ? (in + layout.group - 1) / layout.group : 1;
    row_groups_ = layout.group == 1 ? 1 : (out + layout.row_group - 1) / layout.row_group;
    for (uint64_t i = 0; i < row_groups_ * column_groups_; ++i) {
      const float scale = static_cast<float>(Next() % 900 + 100) * 1e-4f;
      scales_.push_back(Rounded(scale));
      zeros_.push_back(layout.zeros ? static_cast<int>(Next() % 15) + 1 : 8);
    }
    for (uint64_t i = 0; i < out * in; ++i) codes_.push_back(Code());
  }

  [[nodiscard]] std::vector<float> Values() const {
    std::vector<float> values;
    for (uint64_t row = 0; row < out_; ++row) {
      for (uint64_t column = 0; column < in_; ++column) {
        const double scale = scales_[GroupOf(row, column)];
        values.push_back(static_cast<float>(scale * Number(row, column)));
      }
    }
    return values;
  }

  // `name` ends with ".weight".
  void Write(const std::string& name, SafetensorsWriter& file) const {
    const std::string prefix = name.substr(0, name.size() - 7);
    switch (layout_.kind) {
      case QuantizedLayout::kFp8:
      case QuantizedLayout::kInt8:
        file.Tensor(name, layout_.kind == QuantizedLayout::kFp8 ? "F8_E4M3" : "I8", {out_, in_},
                    std::string(codes_.begin(), codes_.end()));
        WriteScales(name + layout_.scale_suffix, file);
        if (absl::StrContains(layout_.config, "static")) {
          file.Tensor(prefix + ".input_scale", "F32", {}, GgufWriter::Scalar(1.0f));
        }
        return;
      case QuantizedLayout::kPacked8:
      case QuantizedLayout::kPacked4:
        return WritePacked(name, file);
      case QuantizedLayout::kAwq:
        return WriteAwq(prefix, file);
      case QuantizedLayout::kGptq:
        return WriteGptq(prefix, file);
    }
  }

 private:
  uint64_t Next() {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return state_ >> 33;
  }
  uint8_t Code() {
    switch (layout_.kind) {
      case QuantizedLayout::kFp8: {
        const auto code = static_cast<uint8_t>(Next());
        return (code & 0x7f) == 0x7f ? 0 : code;  // those are no numbers
      }
      case QuantizedLayout::kInt8:
      case QuantizedLayout::kPacked8:
        return static_cast<uint8_t>(Next());
      default:
        return static_cast<uint8_t>(Next() % 16);
    }
  }
  [[nodiscard]] float Rounded(float scale) const {
    const std::string type = layout_.scale_type;
    if (type == "F16") return kernels::F16ToF32(kernels::F32ToF16(scale));
    if (type == "BF16") return kernels::BF16ToF32(kernels::F32ToBF16(scale));
    return scale;
  }
  [[nodiscard]] uint64_t GroupOf(uint64_t row, uint64_t column) const {
    if (layout_.group == 1) return 0;
    const uint64_t column_group = layout_.group == 0 ? 0 : column / layout_.group;
    return row / layout_.row_group * column_groups_ + column_group;
  }
  [[nodiscard]] double Number(uint64_t row, uint64_t column) const {
    const uint8_t code = codes_[row * in_ + column];
    switch (layout_.kind) {
      case QuantizedLayout::kFp8: {
        const int exponent = code >> 3 & 15;
        const double fraction = code & 7;
        const double size =
            exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
        return (code & 0x80) != 0 ? -size : size;
      }
      case QuantizedLayout::kInt8:
      case QuantizedLayout::kPacked8:
        return static_cast<int8_t>(code);
      default:
        return static_cast<double>(code) - zeros_[GroupOf(row, column)];
    }
  }
  [[nodiscard]] std::string ScaleBytes(uint64_t index) const {
    const std::string type = layout_.scale_type;
    if (type == "F16") return GgufWriter::Scalar(kernels::F32ToF16(scales_[index]));
    if (type == "BF16") return GgufWriter::Scalar(kernels::F32ToBF16(scales_[index]));
    return GgufWriter::Scalar(scales_[index]);
  }
  void WriteScales(const std::string& name, SafetensorsWriter& file) const {
    std::string bytes;
    for (uint64_t i = 0; i < scales_.size(); ++i) bytes += ScaleBytes(i);
    std::vector<uint64_t> shape = {row_groups_, column_groups_};
    if (layout_.group == 1) shape = {1};
    file.Tensor(name, layout_.scale_type, shape, bytes);
  }
  static void Pack(std::vector<uint32_t>& words, uint64_t word, uint64_t place, uint32_t bits,
                   uint32_t value) {
    words[word] |= (value & ((1u << bits) - 1)) << (place * bits);
  }
  static std::string BytesOfWords(const std::vector<uint32_t>& words) {
    return {reinterpret_cast<const char*>(words.data()), words.size() * 4};
  }

  void WritePacked(const std::string& name, SafetensorsWriter& file) const {
    const uint32_t bits = layout_.kind == QuantizedLayout::kPacked8 ? 8 : 4;
    const uint64_t in_words = in_ * bits / 32;
    std::vector<uint32_t> words(out_ * in_words);
    for (uint64_t row = 0; row < out_; ++row) {
      for (uint64_t column = 0; column < in_; ++column) {
        uint32_t code = codes_[row * in_ + column];
        if (bits == 8) code += 128;
        Pack(words, row * in_words + column * bits / 32, column % (32 / bits), bits, code);
      }
    }
    file.Tensor(name + "_packed", "I32", {out_, in_words}, BytesOfWords(words));
    WriteScales(name + "_scale", file);
    file.Tensor(name + "_shape", "I64", {2},
                GgufWriter::Scalar<int64_t>(out_) + GgufWriter::Scalar<int64_t>(in_));
    if (!layout_.zeros) return;
    std::vector<uint32_t> zeros((out_ + 7) / 8 * column_groups_);
    for (uint64_t row = 0; row < out_; ++row) {
      for (uint64_t g = 0; g < column_groups_; ++g) {
        Pack(zeros, row / 8 * column_groups_ + g, row % 8, 4, zeros_[row * column_groups_ + g]);
      }
    }
    file.Tensor(name + "_zero_point", "I32", {(out_ + 7) / 8, column_groups_}, BytesOfWords(zeros));
  }
  [[nodiscard]] std::string ScalesByGroup() const {
    std::string bytes;
    for (uint64_t g = 0; g < column_groups_; ++g) {
      for (uint64_t row = 0; row < out_; ++row) bytes += ScaleBytes(row * column_groups_ + g);
    }
    return bytes;
  }

  void WriteAwq(const std::string& prefix, SafetensorsWriter& file) const {
    constexpr uint64_t kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    std::vector<uint32_t> words(in_ * out_ / 8), zeros(column_groups_ * out_ / 8);
    for (uint64_t c = 0; c < out_ / 8; ++c) {
      for (uint64_t k = 0; k < 8; ++k) {
        const uint64_t row = c * 8 + kOrder[k];
        for (uint64_t i = 0; i < in_; ++i) {
          Pack(words, i * (out_ / 8) + c, k, 4, codes_[row * in_ + i]);
        }
        for (uint64_t g = 0; g < column_groups_; ++g) {
          Pack(zeros, g * (out_ / 8) + c, k, 4, zeros_[row * column_groups_ + g]);
        }
      }
    }
    file.Tensor(prefix + ".qweight", "I32", {in_, out_ / 8}, BytesOfWords(words));
    file.Tensor(prefix + ".qzeros", "I32", {column_groups_, out_ / 8}, BytesOfWords(zeros));
    file.Tensor(prefix + ".scales", layout_.scale_type, {column_groups_, out_}, ScalesByGroup());
  }

  void WriteGptq(const std::string& prefix, SafetensorsWriter& file) const {
    std::vector<uint32_t> words(in_ / 8 * out_), zeros(column_groups_ * out_ / 8);
    for (uint64_t row = 0; row < out_; ++row) {
      for (uint64_t i = 0; i < in_; ++i) {
        Pack(words, i / 8 * out_ + row, i % 8, 4, codes_[row * in_ + i]);
      }
      for (uint64_t g = 0; g < column_groups_; ++g) {
        Pack(zeros, g * (out_ / 8) + row / 8, row % 8, 4,
             static_cast<uint32_t>(zeros_[row * column_groups_ + g] - layout_.stored_less));
      }
    }
    std::string index;
    for (uint64_t i = 0; i < in_; ++i) {
      index += GgufWriter::Scalar<int32_t>(layout_.group == 0 ? 0 : i / layout_.group);
    }
    file.Tensor(prefix + ".qweight", "I32", {in_ / 8, out_}, BytesOfWords(words));
    file.Tensor(prefix + ".qzeros", "I32", {column_groups_, out_ / 8}, BytesOfWords(zeros));
    file.Tensor(prefix + ".scales", layout_.scale_type, {column_groups_, out_}, ScalesByGroup());
    file.Tensor(prefix + ".g_idx", "I32", {in_}, index);
    file.Tensor(prefix + ".bias", "F16", {out_}, std::string(out_ * 2, '\0'));
  }

  const QuantizedLayout& layout_;
  uint64_t out_, in_;
  uint64_t row_groups_, column_groups_;
  uint64_t state_;
  std::vector<float> scales_;
  std::vector<int> zeros_;
  std::vector<uint8_t> codes_;
};

// Returns the values of the projections by their names.
inline std::map<std::string, std::vector<float>> WriteTinyQuantized(const QuantizedLayout& layout,
                                                                    const std::string& directory) {
  const TinyCheckpoint tiny = QuantizableTiny();
  WriteTinyHuggingFace(tiny, directory,
                       absl::StrCat(",\"quantization_config\":{", layout.config, "}"));
  std::map<std::string, std::vector<float>> values;
  SafetensorsWriter file;
  ForEachTinyTensor(tiny, [&](const std::string&, const std::string& name,
                              const std::vector<uint64_t>& shape, uint32_t seed) {
    if (!absl::StrContains(name, "_proj.")) {
      uint64_t elements = 1;
      for (const uint64_t dimension : shape) elements *= dimension;
      file.Tensor(name, "F32", shape, TinyBytes(elements * 4, 0, seed));
      return;
    }
    const QuantizedWeight weight(layout, shape[0], shape[1], seed);
    values[name] = weight.Values();
    weight.Write(name, file);
  });
  WriteFile(directory + "/model.safetensors", file.Build());
  return values;
}

}  // namespace tessera::testing
