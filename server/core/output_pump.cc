#include "server/core/output_pump.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "server/core/request.h"

namespace tessera::server {
namespace {

// Streams a job: enough to make a job worth its while, few enough for every thread to get some.
constexpr size_t kStreams = 16;

}  // namespace

void OutputPump::Flush() {
  for (size_t begin = 0; begin < ready_.size(); begin += kStreams) {
    const size_t end = std::min(ready_.size(), begin + kStreams);
    std::vector<std::shared_ptr<Request>> streams(
        std::make_move_iterator(ready_.begin() + static_cast<ptrdiff_t>(begin)),
        std::make_move_iterator(ready_.begin() + static_cast<ptrdiff_t>(end)));
    pool_->Post([streams = std::move(streams)] {
      for (const std::shared_ptr<Request>& request : streams) request->NotifyHere();
    });
  }
  ready_.clear();
}

}  // namespace tessera::server
