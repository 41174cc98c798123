// The table of quantized Hugging Face layouts: one file each under import/quantizations/, which
// says what a layout's tensors mean as weights.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "blockzoo/import/checkpoint.h"
#include "blockzoo/import/safetensors_reader.h"

namespace tessera::blockzoo {

using FileTensors = std::map<std::string, SafetensorsTensor>;
using ModelTensors = std::map<std::string, CheckpointTensor>;

struct Quantization {
  const char* name = "";
  std::string method;  // config.json's quantization_config.quant_method
  // Takes from `file` the tensors of quantized weights and adds to `model` the weights that they
  // stand for, by the names that an unquantized checkpoint has ("….q_proj.weight"). The views go on
  // pointing into the file. INVALID_ARGUMENT or UNIMPLEMENTED naming the setting or the tensor.
  Status (*present)(const Attributes& settings, FileTensors& file, ModelTensors& model) = nullptr;
};

class QuantizationRegistry {
 public:
  void Add(const Quantization& quantization) { quantizations_.push_back(quantization); }
  [[nodiscard]] const std::vector<Quantization>& quantizations() const { return quantizations_; }

 private:
  std::vector<Quantization> quantizations_;
};

// Generated: calls Register_<file> of each file in import/quantizations/.
void RegisterQuantizations(QuantizationRegistry& registry);

// UNIMPLEMENTED naming the method and the known ones when there is no entry.
[[nodiscard]] StatusOr<Quantization> FindQuantization(absl::string_view method);

}  // namespace tessera::blockzoo
