#include "server/core/output_pump.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

namespace tessera::server {
namespace {

// Streams a job: enough to make a job worth its while, few enough for every thread to get some.
constexpr size_t kStreams = 16;

}  // namespace

void PumpOutput(WorkPool& pool, std::vector<std::shared_ptr<scheduler::StreamMailbox>>& ready) {
  std::vector<std::function<void()>> jobs;
  jobs.reserve((ready.size() + kStreams - 1) / kStreams);
  for (size_t begin = 0; begin < ready.size(); begin += kStreams) {
    const auto first = ready.begin() + static_cast<ptrdiff_t>(begin);
    const auto last = first + static_cast<ptrdiff_t>(std::min(kStreams, ready.size() - begin));
    std::vector<std::shared_ptr<scheduler::StreamMailbox>> streams(std::make_move_iterator(first),
                                                                   std::make_move_iterator(last));
    jobs.push_back([streams = std::move(streams)] {
      for (const std::shared_ptr<scheduler::StreamMailbox>& mailbox : streams) mailbox->Tell();
    });
  }
  // At once: a thread that began with the first would contend with us for the pool's lock.
  pool.PostAll(jobs);
  ready.clear();
}

}  // namespace tessera::server
