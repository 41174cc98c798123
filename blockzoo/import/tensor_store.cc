#include "blockzoo/import/tensor_store.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "blockzoo/import/finite.h"
#include "blockzoo/zoo_mapping.h"
#include "kernels/thread_pool.h"

namespace tessera::blockzoo {
namespace {

// What is checked and hashed in one go: it stays in the nearest caches between the two.
constexpr uint64_t kChunkBytes = 256 << 10;

}  // namespace

TensorStore::TensorStore(const ChainPlan& plan, int threads, const ZooProgress& progress)
    : threads_(threads > 0 ? threads : kernels::ThreadPool::UsableProcessors()),
      progress_(progress) {
  for (const BlockPlan& block : plan.blocks) {
    for (const BlockPlan::Part& part : block.tensors) {
      if (!job_of_.try_emplace(KeyOf(part.tensor), jobs_.size()).second) continue;
      const uint64_t bytes = part.tensor.make
                                 ? TensorBytes(part.tensor.dtype, part.tensor.shape).value_or(0)
                                 : part.tensor.bytes.size();
      jobs_.push_back({.tensor = &part.tensor, .bytes = bytes});
      total_bytes_ += bytes;
    }
  }
}

const Digest& TensorStore::IdentityOf(const CheckpointTensor& tensor) const {
  return jobs_[job_of_.at(KeyOf(tensor))].identity;
}

Status TensorStore::Run(ObjectWriter* writer) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  Status first = absl::OkStatus();
  kernels::ThreadPool pool(
      {.threads = std::clamp(threads_, 1, static_cast<int>(std::max<size_t>(jobs_.size(), 1)))});
  pool.Run([&](int thread) {
    for (size_t i = next.fetch_add(1); i < jobs_.size(); i = next.fetch_add(1)) {
      const Status status = RunJob(jobs_[i], writer, thread);
      if (status.ok()) continue;
      next = jobs_.size();  // the others finish what they have begun
      const std::lock_guard lock(mutex);
      if (first.ok()) first = status;
    }
  });
  // Others may have hashed the last bytes.
  if (first.ok() && progress_) progress_(done_bytes_, total_bytes_);
  return first;
}

Status TensorStore::RunJob(Job& job, ObjectWriter* writer, int thread) {
  if (job.hashed && writer == nullptr) return absl::OkStatus();
  std::span<const std::byte> bytes = job.tensor->bytes;
  std::shared_ptr<MappedFile> made;
  if (job.tensor->make) {
    TESSERA_ASSIGN_OR_RETURN(made, MappedFile::Anonymous(job.bytes));
    TESSERA_RETURN_IF_ERROR(job.tensor->make(made->writable()));
    bytes = made->bytes();
  }
  if (!job.hashed) TESSERA_RETURN_IF_ERROR(Hash(job, bytes, thread));
  if (writer == nullptr) return absl::OkStatus();
  return writer->Put(ObjectKind::kTensor, job.identity, bytes);
}

Status TensorStore::Hash(Job& job, std::span<const std::byte> bytes, int thread) {
  TensorHasher hasher(job.tensor->dtype, job.tensor->shape);
  // Whole blocks, so that each chunk can be checked by itself.
  const uint64_t block = kernels::InfoOf(job.tensor->dtype).block_bytes;
  const uint64_t chunk_bytes = kChunkBytes / block * block;
  for (uint64_t begin = 0; begin < bytes.size(); begin += chunk_bytes) {
    const auto chunk = bytes.subspan(begin, std::min(chunk_bytes, bytes.size() - begin));
    if (const auto at = FirstNotFinite(job.tensor->dtype, chunk)) {
      return Error(
          absl::StatusCode::kInvalidArgument,
          {.what = absl::StrCat("the tensor ", job.tensor->name, " is not valid"),
           .where = absl::StrCat("byte ", begin + *at, " of its ", bytes.size()),
           .why = absl::StrCat("a number of type ", kernels::InfoOf(job.tensor->dtype).name,
                               " there is infinite or none"),
           .fix = "fetch the file again: it may be damaged"});
    }
    hasher.Add(chunk);
    Advance(chunk.size(), thread);
  }
  job.identity = hasher.Finish();
  job.hashed = true;
  return absl::OkStatus();
}

void TensorStore::Advance(uint64_t bytes, int thread) {
  const uint64_t done = done_bytes_.fetch_add(bytes) + bytes;
  // Worker 0 is the calling thread.
  if (thread == 0 && progress_) progress_(done, total_bytes_);
}

}  // namespace tessera::blockzoo
