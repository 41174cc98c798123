// A cost table that outlives its process in a file.
#pragma once

#include <string>
#include <utility>

#include "kernels/cuda/linear/cost_table.h"

namespace tessera::kernels::cuda {

// Not thread-safe. A file that is missing, of another device or version, or damaged is as if never
// written: costs are then measured, and the file is written anew. One that cannot be written costs
// the next process that time, no more.
class KeptCosts {
 public:
  // Empty: nothing is kept.
  explicit KeptCosts(std::string file) : file_(std::move(file)) {}

  // Reads the file, the first time that it is called.
  void Load(const CostKey& key);
  // Writes the file where the table says more than it.
  void Save(const CostKey& key);

  CostTable table;

 private:
  const std::string file_;
  bool loaded_ = false;
  std::string text_;  // what the file is known to hold
};

}  // namespace tessera::kernels::cuda
