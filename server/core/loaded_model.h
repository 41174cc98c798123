// A model ready to serve: its chain in the engine with what turns text into tokens and back.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "blockzoo/chain.h"
#include "config/foundation/ids.h"
#include "config/settings.h"
#include "scheduler/engine.h"

namespace tessera::server {

class Tokenizer;
class ChatTemplate;
class ChatOutput;

// Immutable. Requests hold it while they run; when the registry has let go of it and the last
// request ends, its chain leaves the engine.
struct LoadedModel {
  virtual ~LoadedModel() = default;
  std::string name;
  std::string revision;  // hexadecimal
  ChainId chain_id;
  std::shared_ptr<const blockzoo::Chain> chain;
  std::shared_ptr<const scheduler::TokenTable> tokens;  // of all `vocab` ids
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  // null: not a chat model
  std::string chat_template_error;                    // why the chain's own template is not used
  std::shared_ptr<const ChatOutput> chat_output;      // null: answers are text
  std::vector<TokenId> end_token_ids;
  SamplingDefaults defaults;
  uint64_t max_context = 0;  // tokens of prompt and output together that it takes here
  uint64_t vocab = 0;
  uint64_t weight_bytes = 0;
  uint32_t blocks = 0;
  int64_t loaded_unix_seconds = 0;
};
using ModelPtr = std::shared_ptr<const LoadedModel>;

}  // namespace tessera::server
