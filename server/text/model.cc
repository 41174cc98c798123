#include "server/text/model.h"

#include <algorithm>

namespace tessera::server {

Vocabulary::Vocabulary(const std::vector<Entry>& entries) {
  size_t bytes = 0;
  for (const Entry& entry : entries) bytes += entry.text.size();
  storage_.reserve(bytes);
  ids_.reserve(entries.size());
  for (const Entry& entry : entries) {
    const size_t begin = storage_.size();
    storage_.append(entry.text.data(), entry.text.size());
    const absl::string_view text(storage_.data() + begin, entry.text.size());
    ids_.insert_or_assign(text, entry.id);
    longest_bytes_ = std::max(longest_bytes_, text.size());
  }
}

}  // namespace tessera::server
