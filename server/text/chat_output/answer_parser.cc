#include "server/text/chat_output/answer_parser.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "config/foundation/digest.h"

namespace tessera::server {
namespace {

std::string CallId(uint64_t seed, uint32_t index) {
  constexpr absl::string_view kLetters =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const Digest digest = Hasher().AddText("tool call").AddU64(seed).AddU64(index).Finish();
  std::string id;
  for (size_t i = 0; i < 9; ++i) {
    const size_t number = digest.bytes[2 * i] * size_t{256} + digest.bytes[2 * i + 1];
    id += kLetters[number % kLetters.size()];
  }
  return id;
}

}  // namespace

std::string ControlMarker(absl::string_view name) {
  return absl::StrCat(std::string(1, kControlBegin), name, std::string(1, kControlEnd));
}

AnswerWriter::AnswerWriter(const AnswerOptions& options)
    : limit_(options.calls), special_(options.special), id_seed_(options.id_seed) {}

void AnswerWriter::BeginCall(absl::string_view name, absl::string_view id) {
  silent_ = limit_ == AnswerOptions::Calls::kOne && calls_ > 0;
  if (silent_) return;
  ToolCallDelta& call = out_->calls.emplace_back();
  call.index = calls_++;
  call.id = id.empty() ? CallId(id_seed_, call.index) : std::string(id);
  call.name = std::string(name);
}

void AnswerWriter::Arguments(absl::string_view text) {
  if (silent_ || text.empty()) return;
  const uint32_t index = calls_ - 1;
  if (out_->calls.empty() || out_->calls.back().index != index) {
    out_->calls.emplace_back().index = index;
  }
  AppendPlain(text, &out_->calls.back().arguments);
}

void AnswerWriter::AppendPlain(absl::string_view text, std::string* out) const {
  while (true) {
    const size_t begin = text.find(kControlBegin);
    out->append(text.data(), std::min(begin, text.size()));
    if (begin == absl::string_view::npos) return;
    const size_t end = text.find(kControlEnd, begin);
    if (end == absl::string_view::npos) return;
    if (special_ == AnswerOptions::Special::kShow) {
      out->append(text.substr(begin + 1, end - begin - 1).data(), end - begin - 1);
    }
    text.remove_prefix(end + 1);
  }
}

}  // namespace tessera::server
