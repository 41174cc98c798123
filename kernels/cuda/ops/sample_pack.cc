#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/ops/random.h"
#include "kernels/cuda/ops/sample.h"
#include "kernels/cuda/ops/sample_packed.h"

namespace tessera::kernels::cuda {
namespace {

size_t MaskWords(const SampleRow& row, int32_t vocab) {
  return row.allowed.empty() ? 0 : (static_cast<size_t>(vocab) + 31) / 32;
}

// Appends lists to the block, 4 bytes at a time.
class ListWriter {
 public:
  ListWriter(std::byte* block, size_t begin) : block_(block), at_(begin / 4) {}

  template <typename T>
  PackedList Add(std::span<const T> list) {
    const PackedList packed = {static_cast<uint32_t>(at_), static_cast<uint32_t>(list.size())};
    if (!list.empty()) std::memcpy(block_ + at_ * 4, list.data(), list.size_bytes());
    at_ += list.size_bytes() / 4;
    return packed;
  }

  PackedList AddMask(std::span<const TokenId> ids, size_t words) {
    const PackedList packed = {static_cast<uint32_t>(at_), static_cast<uint32_t>(words)};
    std::memset(block_ + at_ * 4, 0, words * 4);
    for (const TokenId id : ids) {
      block_[at_ * 4 + id / 8] |= std::byte{static_cast<uint8_t>(1u << (id % 8))};
    }
    at_ += words;
    return packed;
  }

 private:
  std::byte* block_;
  size_t at_;
};

PackedSampleRow Settings(const SampleRow& row, const SampleSlots& slots) {
  PackedSampleRow packed;
  packed.uniform = cpu::Uniform(row.seed, row.counter);
  packed.temperature = row.temperature;
  packed.inverse_temperature = 1.0f / row.temperature;
  packed.top_p = row.top_p;
  packed.typical_p = row.typical_p;
  packed.has_min_p = row.min_p > 0 ? 1 : 0;
  packed.min_p_offset = row.min_p > 0 ? row.temperature * std::log(row.min_p) : 0.0f;
  packed.repetition_penalty = row.repetition_penalty;
  packed.presence_penalty = row.presence_penalty;
  packed.frequency_penalty = row.frequency_penalty;
  packed.top_k = row.top_k;
  packed.top_logprobs = row.top_logprobs;
  packed.forced = static_cast<int32_t>(row.forced);
  packed.slot = slots.slot;
  packed.pending = slots.pending;
  packed.first_allowed = row.allowed.empty() ? 0 : row.allowed.front();
  packed.has_penalties = (!row.counts.empty() || slots.pending >= 0) &&
                                 (row.repetition_penalty != 1.0f || row.presence_penalty != 0.0f ||
                                  row.frequency_penalty != 0.0f)
                             ? 1
                             : 0;
  packed.report =
      row.want_logprob || row.top_logprobs > 0 || !row.logprob_ids.empty() || row.forced >= 0 ? 1
                                                                                              : 0;
  packed.changed =
      packed.has_penalties != 0 || !row.bias.empty() || !row.allowed.empty() || !row.banned.empty()
          ? 1
          : 0;
  return packed;
}

}  // namespace

size_t PackedSampleBytes(std::span<const SampleRow> rows, int32_t vocab) {
  size_t bytes = rows.size() * sizeof(PackedSampleRow);
  for (const SampleRow& row : rows) {
    bytes += row.counts.size_bytes() + row.bias.size_bytes() + row.banned.size_bytes() +
             row.logprob_ids.size_bytes() + MaskWords(row, vocab) * 4;
  }
  return bytes;
}

void PackSampleRows(std::span<const SampleRow> rows, std::span<const SampleSlots> slots,
                    int32_t vocab, std::span<std::byte> to) {
  ListWriter lists(to.data(), rows.size() * sizeof(PackedSampleRow));
  for (size_t i = 0; i < rows.size(); ++i) {
    const SampleRow& row = rows[i];
    PackedSampleRow packed = Settings(row, slots.empty() ? SampleSlots{} : slots[i]);
    packed.counts = lists.Add(row.counts);
    packed.bias = lists.Add(row.bias);
    packed.allowed_mask = lists.AddMask(row.allowed, MaskWords(row, vocab));
    packed.banned = lists.Add(row.banned);
    packed.logprob_ids = lists.Add(row.logprob_ids);
    std::memcpy(to.data() + i * sizeof(packed), &packed, sizeof(packed));
  }
}

}  // namespace tessera::kernels::cuda
