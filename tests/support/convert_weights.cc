// Takes rows of a weight from standard input to standard output, for tests that compare with
// another implementation:  convert_weights decode|encode TYPE COLUMNS decode reads canonical bytes
// and writes float32, encode the other way round.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/weight_codec.h"

namespace {

using tessera::kernels::DType;

std::vector<std::byte> ReadAll() {
  std::vector<std::byte> bytes;
  std::byte part[65536];
  for (size_t got = 1; got > 0;) {
    got = std::fread(part, 1, sizeof(part), stdin);
    bytes.insert(bytes.end(), part, part + got);
  }
  return bytes;
}

std::vector<std::byte> Decode(DType dtype, uint64_t columns, const std::vector<std::byte>& bytes) {
  const uint64_t rows = bytes.size() / tessera::kernels::StorageBytes(dtype, 1, columns).value();
  std::vector<std::byte> values(rows * columns * sizeof(float));
  for (uint64_t row = 0; row < rows; ++row) {
    tessera::kernels::DecodeRow(dtype, rows, columns, bytes.data(), row,
                                reinterpret_cast<float*>(values.data()) + row * columns);
  }
  return values;
}

std::vector<std::byte> Encode(DType dtype, uint64_t columns, const std::vector<std::byte>& values) {
  const uint64_t rows = values.size() / sizeof(float) / columns;
  const auto* from = reinterpret_cast<const float*>(values.data());
  std::vector<std::byte> bytes(tessera::kernels::StorageBytes(dtype, rows, columns).value());
  for (uint64_t row = 0; row < rows; row += tessera::kernels::kBandRows) {
    tessera::kernels::EncodeBand(dtype, rows, columns, row,
                                 std::min(tessera::kernels::kBandRows, rows - row),
                                 from + row * columns, bytes.data());
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  const auto dtype = argc == 4 ? tessera::kernels::DTypeFromName(argv[2]) : std::optional<DType>();
  const uint64_t columns = argc == 4 ? std::strtoull(argv[3], nullptr, 10) : 0;
  if (!dtype.has_value() || columns == 0 ||
      !tessera::kernels::StorageBytes(*dtype, 1, columns).has_value()) {
    std::fprintf(stderr, "usage: convert_weights decode|encode TYPE COLUMNS\n");
    return 2;
  }
  const std::vector<std::byte> out = std::strcmp(argv[1], "decode") == 0
                                         ? Decode(*dtype, columns, ReadAll())
                                         : Encode(*dtype, columns, ReadAll());
  return std::fwrite(out.data(), 1, out.size(), stdout) == out.size() ? 0 : 1;
}
