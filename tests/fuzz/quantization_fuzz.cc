// Quantized layouts: a config's text, a zero byte, then a safetensors header without its size, over
// data of a few repeated bytes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "blockzoo/import/huggingface_metadata.h"
#include "blockzoo/import/quantization.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera::blockzoo;
  const uint8_t* const zero = std::find(data, data + size, 0);
  if (zero == data + size) return 0;
  const std::string header(zero + 1, data + size);
  const auto settings =
      HuggingFaceSettings({reinterpret_cast<const char*>(data), static_cast<size_t>(zero - data)});
  if (!settings.ok()) return 0;
  const auto method = settings->Text("quantization_config.quant_method");
  const auto quantization = FindQuantization(method.ok() ? *method : "fp8");
  if (!quantization.ok()) return 0;
  const uint64_t header_bytes = header.size();
  for (const size_t data_bytes : {size_t{64}, size_t{1024}, size_t{4096}}) {
    const std::string file = std::string(reinterpret_cast<const char*>(&header_bytes), 8) + header +
                             std::string(data_bytes, '\x38');
    const auto tensors = ParseSafetensors(std::as_bytes(std::span(file.data(), file.size())));
    if (!tensors.ok()) continue;
    FileTensors left;
    for (const SafetensorsTensor& tensor : *tensors) left[tensor.name] = tensor;
    ModelTensors model;
    if (!quantization->present(*settings, left, model).ok()) continue;
    for (const auto& [name, tensor] : model) {
      const auto bytes = TensorBytes(tensor.dtype, tensor.shape);
      if (!bytes.ok() || *bytes > 1 << 20) continue;
      std::vector<std::byte> canonical(*bytes);
      static_cast<void>(tensor.make(canonical));
      const auto rows = RowsOf(tensor, "rows", tensor.shape[0] / 2, 1);
      if (rows.ok()) {
        canonical.assign(TensorBytes(rows->dtype, rows->shape).value_or(0), std::byte{0});
        static_cast<void>(rows->make(canonical));
      }
    }
  }
  return 0;
}
