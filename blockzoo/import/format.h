// The table of checkpoint formats: one file each under import/formats/.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "blockzoo/import/checkpoint.h"

namespace tessera::blockzoo {

struct Format {
  const char* name = "";
  // Whether the file or directory at `path` looks like this format.
  bool (*recognises)(const std::string& path) = nullptr;
  StatusOr<std::unique_ptr<Checkpoint>> (*open)(const std::string& path) = nullptr;
};

class FormatRegistry {
 public:
  void Add(const Format& format) { formats_.push_back(format); }
  [[nodiscard]] const std::vector<Format>& formats() const { return formats_; }

 private:
  std::vector<Format> formats_;
};

// Generated: calls Register_<file> of each file in import/formats/.
void RegisterFormats(FormatRegistry& registry);

// Opens `path` with the format that recognises it; INVALID_ARGUMENT listing the formats otherwise.
[[nodiscard]] StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpoint(const std::string& path);

}  // namespace tessera::blockzoo
