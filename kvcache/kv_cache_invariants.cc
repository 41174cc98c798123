// KvCache::CheckInvariants: counts everything again.
#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "kvcache/kv_cache_impl.h"

namespace tessera::kvcache {
namespace {

using kernels::kPageTokens;

Status Broken(absl::string_view what) { return absl::InternalError(absl::StrCat("cache: ", what)); }

}  // namespace

// Adds the table entries of `sequence` to `references` and checks them against its path.
Status KvCache::Impl::CountReferences(const SequenceCache& sequence,
                                      absl::flat_hash_map<PageId, uint32_t>* references) const {
  const std::vector<IndexNode*>& path = sequence.path_;
  for (size_t t = 0; t < sequence.shared_tokens_.size(); ++t) {
    const uint32_t shared = sequence.shared_tokens_[t];
    if (shared % kPageTokens != 0 ||
        shared < sequence.committed_tokens_ / kPageTokens * kPageTokens) {
      return Broken("shared_tokens is no count of sealed pages");
    }
    for (uint32_t p = 0; p < sequence.stride_; ++p) {
      const PageId id = sequence.pages_[t * sequence.stride_ + p];
      const bool sealed = Sealed(sequence, t, p);
      if (id.valid() != (sealed || p < sequence.page_count_)) {
        return Broken("a table has a page too few or too many");
      }
      if (!id.valid()) {
        continue;
      }
      ++(*references)[id];
      const IndexNode* node = sealed && p < path.size() ? path[p] : nullptr;
      if (pages.Get(id).node != node) {
        return Broken("a page is not published where its sequence's path says");
      }
      if (node != nullptr && node->Find(sequence.layout_->tables[t].state_digest) != id) {
        return Broken("a path's node has another page for the table");
      }
    }
  }
  return absl::OkStatus();
}

Status KvCache::CheckInvariants(std::span<const SequenceCache* const> sequences) const {
  TESSERA_RETURN_IF_ERROR(impl_->pages.CheckInvariants());
  TESSERA_RETURN_IF_ERROR(impl_->index.CheckInvariants());
  absl::flat_hash_map<PageId, uint32_t> references;
  for (const SequenceCache* sequence : sequences) {
    if (sequence->layout_ == nullptr) {
      continue;
    }
    TESSERA_RETURN_IF_ERROR(impl_->CountReferences(*sequence, &references));
    const std::vector<IndexNode*>& path = sequence->path_;
    const std::vector<uint32_t>& shared = sequence->shared_tokens_;
    if (!path.empty() &&
        path.size() > *std::max_element(shared.begin(), shared.end()) / kPageTokens) {
      return Broken("a path is longer than the sealed pages");
    }
    for (size_t i = 1; i < path.size(); ++i) {
      if (path[i]->parent != path[i - 1]) {
        return Broken("a path is no path");
      }
    }
  }
  for (const auto& run : impl_->pages.runs()) {
    for (uint32_t i = 0; run != nullptr && i < run->pool->shape.run_pages; ++i) {
      const auto found = references.find(impl_->pages.IdOf(*run, i));
      if (run->pages[i].references != (found == references.end() ? 0 : found->second)) {
        return Broken("a page miscounts its references");
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::kvcache
