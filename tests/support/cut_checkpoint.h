// Files cut into blocks by the architecture that they name.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "blockzoo/import/architecture.h"
#include "blockzoo/import/format.h"
#include "tests/support/tiny_checkpoint.h"

namespace tessera::testing {

// The plan without the bytes of its tensors, which end with the checkpoint.
inline StatusOr<blockzoo::ChainPlan> CutPath(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(const auto checkpoint, blockzoo::OpenCheckpoint(path));
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::Architecture architecture,
                           blockzoo::FindArchitecture(*checkpoint));
  TESSERA_ASSIGN_OR_RETURN(blockzoo::ChainPlan plan, architecture.cut(*checkpoint));
  for (blockzoo::BlockPlan& block : plan.blocks) {
    for (blockzoo::BlockPlan::Part& part : block.tensors) part.tensor.bytes = {};
  }
  return plan;
}

inline StatusOr<blockzoo::ChainPlan> CutGguf(const GgufWriter& gguf) {
  const TempDirectory directory;
  WriteFile(directory.path("m.gguf"), gguf.Build());
  return CutPath(directory.path("m.gguf"));
}

inline void ExpectRefused(const Status& status, absl::StatusCode code, absl::string_view name) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_NE(status.message().find(name), absl::string_view::npos) << status;
}

}  // namespace tessera::testing
