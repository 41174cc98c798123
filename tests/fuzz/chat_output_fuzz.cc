// Answers of any model: a byte that chooses the format, one that says how the answer is cut, and
// the answer, whose bytes below 8 stand for marks of the format. However it is cut, it has the same
// parts.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "server/text/chat_output/answer_format.h"
#include "server/text/utf8.h"
#include "tests/support/parse_pieces.h"

namespace {

using tessera::server::AnswerFormat;
using tessera::server::AnswerFormats;
using tessera::server::AnswerOptions;
using tessera::server::ChatOutput;
using tessera::server::ChatParts;
using tessera::server::Markup;
using tessera::server::OfferedTools;
using tessera::server::ParsePieces;
using tessera::server::TokenBytes;
using tessera::server::ToolCallDelta;
using tessera::server::Utf8Repair;

std::vector<std::string> MarksOf(const AnswerFormat& format) {
  std::vector<std::string> marks;
  Markup markup = format.markup;
  tessera::server::ForEachMark(&markup, [&](std::string* mark) { marks.push_back(*mark); });
  return marks;
}

AnswerOptions OptionsOf(uint8_t choice) {
  AnswerOptions options;
  if ((choice & 1) != 0) {
    options.tools = OfferedTools(
        R"([{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}}])");
  }
  if ((choice & 2) != 0) options.prompt = "<think>\n";
  if ((choice & 4) != 0) options.calls = AnswerOptions::Calls::kOne;
  return options;
}

std::string Parse(const ChatOutput& output, uint8_t choice,
                  const std::vector<std::string>& pieces) {
  const auto parser = output.MakeParser(OptionsOf(choice));
  if (parser == nullptr) return "";
  const ChatParts all = ParsePieces(parser.get(), pieces);
  std::string shown = all.text + '\n' + all.reasoning;
  for (const ToolCallDelta& call : all.calls) {
    if (call.name.empty() || call.id.empty()) std::abort();
    shown += '\n' + call.name + ' ' + call.arguments;
  }
  Utf8Repair repair;
  std::string repaired;
  repair.Append(shown, &repaired);
  repair.Flush(&repaired);
  if (repaired != shown) std::abort();
  return shown;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const AnswerFormat& format = AnswerFormats()[data[0] % AnswerFormats().size()];
  const std::vector<std::string> marks = MarksOf(format);
  // Every other vocabulary has the marks as control tokens.
  TokenBytes tokens;
  for (const std::string& mark : marks) {
    if ((data[0] & 0x80) != 0) tokens.Add(mark, tessera::server::TokenKind::kControl);
  }
  const auto output = ChatOutput::Choose(format.name, "</think>", tokens);
  if (!output.ok()) std::abort();
  std::vector<std::string> pieces;
  Utf8Repair repair;
  for (size_t i = 2; i < size; ++i) {
    std::string piece;
    if (data[i] < 8) {
      const std::string& mark = marks[data[i] % marks.size()];
      repair.Flush(&piece);
      piece += (*output)->IsMark(mark) ? tessera::server::ControlMarker(mark) : mark;
    } else {
      const char c = static_cast<char>(data[i]);
      repair.Append(absl::string_view(&c, 1), &piece);
    }
    if (!piece.empty()) pieces.push_back(std::move(piece));
  }
  std::vector<std::string> joined;
  std::string whole;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (joined.empty() || (data[1] >> (i % 8) & 1) != 0) joined.emplace_back();
    joined.back() += pieces[i];
    whole += pieces[i];
  }
  const uint8_t choice = data[1];
  const std::string expected = Parse(**output, choice, {whole});
  if (Parse(**output, choice, pieces) != expected) std::abort();
  if (Parse(**output, choice, joined) != expected) std::abort();
  return 0;
}
