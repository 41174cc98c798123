// What a request's output looks like on the wire: a whole answer, or the chunks of a stream.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/core/collector.h"
#include "server/core/output.h"
#include "server/http/openai_request.h"

namespace tessera::server {

// A prompt as an answer repeats it.
struct EchoedPrompt {
  struct Token {
    std::string raw;
    uint32_t offset = 0;  // characters of the prompt's text before it
  };
  std::string text;
  std::vector<Token> tokens;  // of the whole prompt; only needed with log-probabilities
};

// What is the same in all parts of one answer.
struct OpenAiAnswer {
  OpenAiEndpoint endpoint = OpenAiEndpoint::kCompletions;
  std::string id;       // "chatcmpl-…", "cmpl-…"
  int64_t created = 0;  // seconds since 1970
  std::string model;    // as the client named it
  size_t prompts = 1;
  uint32_t n = 1;  // choices of one prompt
  bool logprobs = false;
  OpenAiRequest::StreamUsage usage = OpenAiRequest::StreamUsage::kNever;
  OpenAiRequest::Echo echo = OpenAiRequest::Echo::kNo;
  std::vector<EchoedPrompt> echoed;  // one a prompt when there is an echo
};

// One output a prompt, none with an error.
[[nodiscard]] std::string WholeAnswer(const OpenAiAnswer& answer,
                                      const std::vector<CollectedOutput>& outputs);

// Turns batches into events. Of one stream; not thread-safe.
class ChunkWriter {
 public:
  explicit ChunkWriter(OpenAiAnswer answer);

  // Appends the events of what a prompt's batch has to `out`; an error in it is the caller's.
  void Append(size_t prompt, const OutputBatch& batch, std::string* out);
  // After the last batch of all prompts: usage, if asked for, and the mark of the end.
  void Finish(std::string* out) const;

 private:
  struct Choice {
    bool begun = false;       // its first chunk was written
    uint32_t characters = 0;  // of its tokens so far
    uint32_t tokens = 0;      // that its deltas stood for
  };

  void Begin(size_t prompt, uint32_t choice, std::string* out);
  void AppendDelta(size_t prompt, const OutputDelta& delta, std::string* out);
  void AppendFinished(size_t prompt, const OutputFinished& finished, std::string* out);

  const OpenAiAnswer answer_;
  std::string fingerprint_;
  std::vector<Choice> choices_;                    // of all prompts
  std::vector<std::vector<OutputToken>> prompts_;  // log-probabilities of each prompt's tokens
  OutputUsage usage_;                              // of all
};

}  // namespace tessera::server
