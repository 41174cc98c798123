#include "server/core/output_pump.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

namespace tessera::server {
namespace {

TEST(OutputPumpTest, TellsEachReaderOnceAndEmptiesTheList) {
  // Around the number of streams that a job takes.
  for (const size_t streams : {0, 1, 15, 16, 17, 100}) {
    std::vector<std::atomic<int>> told(streams);
    {
      WorkPool pool({.threads = 2});
      std::vector<std::shared_ptr<scheduler::StreamMailbox>> ready;
      for (size_t i = 0; i < streams; ++i) {
        ready.push_back(std::make_shared<scheduler::StreamMailbox>(
            scheduler::StreamMailbox::Options{.on_ready = [&told, i] { told[i].fetch_add(1); }}));
      }
      PumpOutput(pool, ready);
      EXPECT_TRUE(ready.empty());
    }
    for (size_t i = 0; i < streams; ++i) EXPECT_EQ(told[i].load(), 1) << i << " of " << streams;
  }
}

}  // namespace
}  // namespace tessera::server
