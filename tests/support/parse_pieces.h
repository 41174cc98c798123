// A whole answer through a parser, piece by piece.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "server/text/chat_output/answer_parser.h"

namespace tessera::server {

// All parts of the answer whose text is the pieces in order.
inline ChatParts ParsePieces(AnswerParser* parser, const std::vector<std::string>& pieces) {
  ChatParts all;
  for (const std::string& piece : pieces) {
    ChatParts parts;
    parser->Push(piece, &parts);
    all.Append(std::move(parts));
  }
  ChatParts parts;
  parser->Finish(&parts);
  all.Append(std::move(parts));
  return all;
}

}  // namespace tessera::server
