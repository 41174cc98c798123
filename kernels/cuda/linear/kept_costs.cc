#include "kernels/cuda/linear/kept_costs.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace tessera::kernels::cuda {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{4} << 20;  // as CostTable::Parse

}  // namespace

void KeptCosts::Load(const CostKey& key) {
  if (loaded_ || file_.empty()) return;
  loaded_ = true;
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(file_, error);
  if (error || bytes > kMaxFileBytes) return;
  std::ifstream from(file_, std::ios::binary);
  std::string text(bytes, '\0');
  if (!from.read(text.data(), static_cast<std::streamsize>(bytes))) return;
  StatusOr<CostTable> parsed = CostTable::Parse(text, key);
  if (!parsed.ok()) return;
  table = *std::move(parsed);
  text_ = std::move(text);
}

void KeptCosts::Save(const CostKey& key) {
  if (file_.empty()) return;
  std::string text = table.Text(key);
  if (text == text_) return;
  // Renamed when it is whole: other processes may read it, or write their own.
  const std::string temporary = absl::StrCat(file_, ".", getpid());
  std::error_code error;
  {
    std::ofstream to(temporary, std::ios::binary | std::ios::trunc);
    to << text;
    if (!to.flush()) {
      to.close();
      std::filesystem::remove(temporary, error);
      return;
    }
  }
  std::filesystem::rename(temporary, file_, error);
  if (!error) text_ = std::move(text);
}

}  // namespace tessera::kernels::cuda
