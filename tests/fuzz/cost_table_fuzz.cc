// Tables of costs, as they lie in a cache folder that others may write.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "kernels/cpu/tile_costs.h"
#include "kernels/cuda/linear/cost_table.h"

namespace {

void ReadTileCosts(absl::string_view text) {
  using tessera::kernels::cpu::TileCosts;
  const TileCosts::Key key{.processor = "CPU"};
  const auto table = TileCosts::Parse(text, key);
  if (!table.ok()) return;
  const std::string again = table->Text(key);
  const auto parsed = TileCosts::Parse(again, key);
  if (!parsed.ok() || parsed->Text(key) != again) abort();
  static_cast<void>(table->Describe());
  for (const int32_t rows : {1, 64, 65, 512}) {
    static_cast<void>(table->Tiles(tessera::kernels::DType::kQ4_1, rows));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using tessera::kernels::cuda::CostTable;
  const tessera::kernels::cuda::CostKey key{.device = "GPU", .major = 9, .driver_version = 13000};
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  ReadTileCosts(text);
  const auto table = CostTable::Parse(text, key);
  if (!table.ok()) return 0;
  const std::string again = table->Text(key);
  const auto parsed = CostTable::Parse(again, key);
  if (!parsed.ok() || parsed->Text(key) != again) abort();
  for (const auto& [group, costs] : table->costs()) {
    for (const int32_t rows : {1, 64, 65, 512, 513}) {
      static_cast<void>(table->Choose(group, rows));
      static_cast<void>(table->Has(group, rows));
    }
  }
  return 0;
}
