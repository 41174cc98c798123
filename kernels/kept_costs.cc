#include "kernels/kept_costs.h"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace tessera::kernels {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{4} << 20;

}  // namespace

std::optional<std::string> KeptText::Load() {
  if (loaded_ || file_.empty()) return std::nullopt;
  loaded_ = true;
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(file_, error);
  if (error || bytes > kMaxFileBytes) return std::nullopt;
  std::ifstream from(file_, std::ios::binary);
  std::string text(bytes, '\0');
  if (!from.read(text.data(), static_cast<std::streamsize>(bytes))) return std::nullopt;
  return text;
}

void KeptText::Save(const std::string& text) {
  if (file_.empty() || text == text_) return;
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
  if (!error) text_ = text;
}

}  // namespace tessera::kernels
