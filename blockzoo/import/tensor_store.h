// The importer's tensors on their way into the zoo: made, checked, hashed and written by several
// threads.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "blockzoo/import/architecture.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_objects.h"

namespace tessera::blockzoo {

// The plan must outlive it. `Run` is called from one thread.
class TensorStore {
 public:
  TensorStore(const ChainPlan& plan, int threads, const ZooProgress& progress);

  // Bytes of the distinct tensors, a tied one once.
  [[nodiscard]] uint64_t total_bytes() const { return total_bytes_; }

  // Works out the identity of each tensor, once, and puts it into `writer` unless that is null.
  // Each thread takes the memory of one tensor where those have to be made. INVALID_ARGUMENT naming
  // the tensor when an element is no finite number.
  [[nodiscard]] Status Run(ObjectWriter* writer);
  // After `Run`.
  [[nodiscard]] const Digest& IdentityOf(const CheckpointTensor& tensor) const;

 private:
  // A name may stand for several cuts of one tensor.
  using Key = std::pair<std::string, const std::byte*>;
  struct Job {
    const CheckpointTensor* tensor = nullptr;
    uint64_t bytes = 0;
    Digest identity;
    bool hashed = false;
  };
  static Key KeyOf(const CheckpointTensor& tensor) { return {tensor.name, tensor.bytes.data()}; }
  [[nodiscard]] Status RunJob(Job& job, ObjectWriter* writer, int thread);
  [[nodiscard]] Status Hash(Job& job, std::span<const std::byte> bytes, int thread);
  void Advance(uint64_t bytes, int thread);

  const int threads_;
  const ZooProgress& progress_;
  std::vector<Job> jobs_;  // in chain order
  std::map<Key, size_t> job_of_;
  uint64_t total_bytes_ = 0;
  std::atomic<uint64_t> done_bytes_ = 0;
};

}  // namespace tessera::blockzoo
