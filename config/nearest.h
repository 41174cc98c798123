// The name that somebody probably meant.
#pragma once

#include <span>
#include <string>

#include "absl/strings/string_view.h"

namespace tessera {

// Insertions, deletions, substitutions and swaps of neighbours that lead from `a` to `b`.
[[nodiscard]] int EditDistance(absl::string_view a, absl::string_view b);

// The candidate nearest to `name`, the first of equals; empty if none is near enough to be meant (a
// third of its length) or if `name` is longer than 64 bytes.
[[nodiscard]] std::string NearestName(absl::string_view name,
                                      std::span<const std::string> candidates);

}  // namespace tessera
