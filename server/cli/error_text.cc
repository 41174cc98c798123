#include "server/cli/error_text.h"

#include <utility>

namespace tessera::server::cli {

ErrorParts PartsOfText(absl::string_view text) {
  ErrorParts parts;
  std::string* part = &parts.what;
  const std::pair<absl::string_view, std::string*> marks[] = {
      {"; where: ", &parts.where}, {"; why: ", &parts.why}, {"; fix: ", &parts.fix}};
  for (const auto& [mark, next] : marks) {
    const size_t at = text.find(mark);
    if (at == absl::string_view::npos) continue;
    *part = std::string(text.substr(0, at));
    text.remove_prefix(at + mark.size());
    part = next;
  }
  *part = std::string(text);
  return parts;
}

}  // namespace tessera::server::cli
