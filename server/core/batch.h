// Several requests that are answered together.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "server/core/collector.h"

namespace tessera::server {

// Thread-safe. Destroying it ends what still runs.
class Batch : public std::enable_shared_from_this<Batch> {
 public:
  // Whether the first failure ends the others: then they have neither output nor error, and none
  // starts where one is not valid.
  enum class Failure : uint8_t { kIsKept, kEndsAll };
  // kFirstAhead: the others start when the first has ended, and find in the cache what they have in
  // common with it.
  enum class Order : uint8_t { kAtOnce, kFirstAhead };
  // Gets the outputs in the order of the specs; those that could not start have their error, too.
  using Done = std::function<void(std::vector<CollectedOutput>)>;

  // `done` is called once: on a pool thread, or on this one when nothing could start; not at all
  // once it was cancelled.
  [[nodiscard]] static std::shared_ptr<Batch> Start(Frontend* frontend,
                                                    std::vector<GenerationSpec> specs,
                                                    Failure failure, Order order, Done done);

  Batch(Frontend* frontend, std::vector<GenerationSpec> specs, Failure failure, Done done);
  void Cancel();

 private:
  void StartRange(size_t begin, size_t end);
  // False when the batch has ended.
  bool StartOne(size_t index);
  void OnOutput(size_t index, CollectedOutput output);

  Frontend* const frontend_;
  const Failure failure_;
  Done done_;
  std::vector<GenerationSpec> specs_;  // each is taken when it starts
  std::mutex mutex_;
  std::vector<std::shared_ptr<RequestHandle>> handles_;
  std::vector<CollectedOutput> outputs_;
  size_t open_;          // without output
  size_t waiting_from_;  // first that starts when the first has ended
  bool ended_ = false;
};

// Index of the first output with an error; their number when there is none.
[[nodiscard]] size_t FirstFailure(const std::vector<CollectedOutput>& outputs);

}  // namespace tessera::server
