// Where tests find the real data that the project did not make.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

namespace tessera::testing {

// The project's root, from the place of this header.
inline std::filesystem::path SourceDir() {
  return std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
}

// The path of `relative` under $TESSERA_TEST_DATA, else under ../shared/data; nullopt when it is
// not there. Tests that need it are skipped then.
inline std::optional<std::string> TestDataPath(const std::string& relative) {
  const char* root = std::getenv("TESSERA_TEST_DATA");
  const std::filesystem::path path =
      (root != nullptr ? std::filesystem::path(root) : SourceDir() / ".." / "shared" / "data") /
      relative;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  return path.string();
}

inline std::string ReadWholeFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace tessera::testing
