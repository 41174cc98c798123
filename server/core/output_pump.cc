#include "server/core/output_pump.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace tessera::server {
namespace {

// Streams a job: enough to make a job worth its while, few enough for every thread to get some.
constexpr size_t kStreams = 16;

}  // namespace

void PumpOutput(WorkPool& pool, std::vector<std::shared_ptr<scheduler::StreamMailbox>>& ready) {
  for (size_t begin = 0; begin < ready.size(); begin += kStreams) {
    const auto first = ready.begin() + static_cast<ptrdiff_t>(begin);
    const auto last = first + static_cast<ptrdiff_t>(std::min(kStreams, ready.size() - begin));
    std::vector<std::shared_ptr<scheduler::StreamMailbox>> streams(std::make_move_iterator(first),
                                                                   std::make_move_iterator(last));
    pool.Post([streams = std::move(streams)] {
      for (const std::shared_ptr<scheduler::StreamMailbox>& mailbox : streams) mailbox->Tell();
    });
  }
  ready.clear();
}

}  // namespace tessera::server
