#include "server/http/openai_generation.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/collector.h"
#include "server/core/text_ops.h"
#include "server/http/openai_response.h"

namespace tessera::server {
namespace {

using Echo = OpenAiRequest::Echo;

uint32_t CharactersIn(absl::string_view text) {
  uint32_t count = 0;
  for (const char c : text) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

StatusOr<EchoedPrompt> EchoOf(const LoadedModel& model, const PromptSpec& prompt) {
  EchoedPrompt echoed;
  TESSERA_ASSIGN_OR_RETURN(const std::vector<TokenSpan> spans, EncodeSpans(model, prompt));
  const bool whole_text = prompt.input == PromptSpec::Input::kText && !prompt.truncate_to;
  if (whole_text) {
    echoed.text = prompt.text;
  } else {
    std::vector<TokenId> ids;
    for (const TokenSpan& span : spans) ids.push_back(span.id);
    TESSERA_ASSIGN_OR_RETURN(DecodedText decoded, DecodeTokens(model, ids, SpecialTokens::kSkip));
    echoed.text = std::move(decoded.text);
  }
  uint32_t characters = 0;
  size_t counted_bytes = 0;
  for (const TokenSpan& span : spans) {
    echoed.tokens.push_back({span.raw, characters});
    if (whole_text) {
      // Its place in the text, which control tokens at the start take nothing of.
      const size_t begin = std::max<size_t>(counted_bytes, span.begin);
      characters +=
          CharactersIn(absl::string_view(prompt.text).substr(counted_bytes, begin - counted_bytes));
      counted_bytes = begin;
      echoed.tokens.back().offset = characters;
    } else {
      characters += CharactersIn(span.raw);
    }
  }
  return echoed;
}

// What both ways of answering share. Runs on the exchange's strand unless said otherwise; lives as
// long as the exchange has not closed, and whoever works for it.
class Serving : public ExchangeObserver, public std::enable_shared_from_this<Serving> {
 public:
  Serving(Frontend* frontend, std::shared_ptr<Exchange> exchange, OpenAiRequest request,
          OpenAiAnswer answer, std::string request_id)
      : frontend_(frontend),
        exchange_(std::move(exchange)),
        specs_(std::move(request.specs)),
        answer_(std::move(answer)),
        request_id_(std::move(request_id)) {
    for (size_t i = 0; i < specs_.size(); ++i) {
      specs_[i].request_id = specs_.size() == 1 ? request_id_ : absl::StrCat(request_id_, "-", i);
    }
  }

  void Begin() {
    if (answer_.echo == Echo::kNo) return Start();
    // An echo needs the tokenizer, and so the model, before anything else.
    frontend_->WithModel(specs_.front().model, std::nullopt,
                         [weak = weak_from_this()](const StatusOr<ModelPtr>& model) {
                           if (const auto self = weak.lock()) self->PrepareEcho(model);
                         });
  }

  void OnWritable() override {}
  void OnIdle() override {}
  void OnClosed() override {
    done_ = true;
    handles_.clear();  // ends what still runs
  }

 protected:
  [[nodiscard]] virtual StatusOr<std::shared_ptr<RequestHandle>> StartOne(size_t index,
                                                                          GenerationSpec spec) = 0;
  // All have been started.
  virtual void OnStarted() {}

  void Fail(const Status& status) {
    if (done_) return;
    Respond(OpenAiErrorResponse(status, answer_.endpoint));
  }

  void Respond(HttpResponse response) {
    if (done_) return;
    done_ = true;
    handles_.clear();
    response.headers.emplace_back("x-request-id", request_id_);
    exchange_->Respond(std::move(response));
  }

  Frontend* const frontend_;
  const std::shared_ptr<Exchange> exchange_;
  std::vector<GenerationSpec> specs_;  // taken by Start
  OpenAiAnswer answer_;                // unchanged once started
  const std::string request_id_;
  std::vector<std::shared_ptr<RequestHandle>> handles_;  // by prompt
  bool done_ = false;                                    // nothing more is to be sent

 private:
  void Start() {
    if (done_) return;
    for (size_t i = 0; i < specs_.size(); ++i) {
      StatusOr<std::shared_ptr<RequestHandle>> handle = StartOne(i, std::move(specs_[i]));
      if (!handle.ok()) return Fail(handle.status());
      handles_.push_back(std::move(*handle));
    }
    OnStarted();
  }

  // On any thread; `specs_` does not change meanwhile.
  void PrepareEcho(const StatusOr<ModelPtr>& model) {
    Status status = model.status();
    std::vector<EchoedPrompt> echoed;
    for (size_t i = 0; i < specs_.size() && status.ok(); ++i) {
      StatusOr<EchoedPrompt> one = EchoOf(**model, specs_[i].prompt);
      status = one.status();
      if (one.ok()) echoed.push_back(std::move(*one));
    }
    exchange_->Post([self = shared_from_this(), status, echoed = std::move(echoed)]() mutable {
      if (!status.ok()) return self->Fail(status);
      self->answer_.echoed = std::move(echoed);
      self->Start();
    });
  }
};

// One response when all is there.
class WholeServing final : public Serving {
 public:
  WholeServing(Frontend* frontend, std::shared_ptr<Exchange> exchange, OpenAiRequest request,
               OpenAiAnswer answer, std::string request_id)
      : Serving(frontend, std::move(exchange), std::move(request), std::move(answer),
                std::move(request_id)),
        outputs_(answer_.prompts),
        open_(answer_.prompts) {}

 private:
  StatusOr<std::shared_ptr<RequestHandle>> StartOne(size_t index, GenerationSpec spec) override {
    return StartCollected(
        *frontend_, std::move(spec), [weak = weak_from_this(), index](CollectedOutput output) {
          if (const auto self = weak.lock()) {
            static_cast<WholeServing*>(self.get())->OnOutput(index, std::move(output));
          }
        });
  }

  // On a pool thread, where a long answer can be written down without keeping other clients.
  void OnOutput(size_t index, CollectedOutput output) {
    if (!output.error.ok()) {
      exchange_->Post([self = shared_from_this(), this, status = output.error] { Fail(status); });
      return;
    }
    outputs_[index] = std::move(output);
    if (open_.fetch_sub(1) > 1) return;
    exchange_->Post(
        [self = shared_from_this(), this, body = WholeAnswer(answer_, outputs_)]() mutable {
          Respond(OpenAiJson(std::move(body)));
        });
  }

  std::vector<CollectedOutput> outputs_;  // each written by the one that ends it
  std::atomic<size_t> open_;
};

// Events as they come. Takes output only when the last write is out: while a reader is slow, output
// gathers in the mailbox, whose bound the engine watches.
class StreamServing final : public Serving, public EventSink {
 public:
  StreamServing(Frontend* frontend, std::shared_ptr<Exchange> exchange, OpenAiRequest request,
                OpenAiAnswer answer, std::string request_id)
      : Serving(frontend, std::move(exchange), std::move(request), std::move(answer),
                std::move(request_id)) {}

  // On a pool thread.
  void OnReady(const std::shared_ptr<RequestHandle>&) override {
    if (posted_.exchange(true)) return;
    exchange_->Post([self = shared_from_this(), this] {
      posted_.store(false);
      Pump();
    });
  }

  void OnWritable() override {
    const auto self = shared_from_this();  // the end of the response drops the observer
    Pump();
  }

  void OnIdle() override {
    if (head_sent_ && !done_) exchange_->Write(SseComment("keep-alive"));
  }

 private:
  StatusOr<std::shared_ptr<RequestHandle>> StartOne(size_t, GenerationSpec spec) override {
    const auto self = std::static_pointer_cast<StreamServing>(shared_from_this());
    return frontend_->Start(std::move(spec), std::weak_ptr<EventSink>(self));
  }

  void OnStarted() override {
    chunks_.emplace(answer_);
    open_ = handles_.size();
    ended_.assign(handles_.size(), false);
  }

  void Pump() {
    if (done_ || !chunks_ || !exchange_->writable()) return;
    std::string events;
    std::optional<Status> failure;
    bool something = false;
    for (size_t i = 0; i < handles_.size() && !failure; ++i) {
      while (!ended_[i] && !failure && handles_[i]->Take(batch_)) {
        something = something || !batch_.error || !batch_.deltas.empty();
        chunks_->Append(i, batch_, &events);
        failure = batch_.error;
        if (!batch_.ends()) continue;
        ended_[i] = true;
        --open_;
      }
    }
    // Before the head is out, an error still gets a status of its own.
    if (failure && !head_sent_ && !something) return Fail(*failure);
    if (!something && !failure) return;
    SendHead();
    if (failure) {
      events += SseEvent(OpenAiErrorBody(*failure, answer_.endpoint));
    } else if (open_ == 0) {
      chunks_->Finish(&events);
    }
    if (!events.empty()) exchange_->Write(std::move(events));
    if (!failure && open_ > 0) return;
    done_ = true;
    handles_.clear();
    exchange_->Finish();
  }

  void SendHead() {
    if (std::exchange(head_sent_, true)) return;
    HttpResponse head;
    head.headers = {{"content-type", "text/event-stream"},
                    {"cache-control", "no-cache"},
                    {"x-accel-buffering", "no"},
                    {"x-request-id", request_id_}};
    exchange_->Begin(std::move(head));
  }

  std::optional<ChunkWriter> chunks_;
  OutputBatch batch_;
  std::vector<bool> ended_;  // by prompt
  size_t open_ = 0;
  bool head_sent_ = false;
  std::atomic<bool> posted_{false};
};

OpenAiAnswer AnswerTo(const OpenAiRequest& request, const std::string& answer_id) {
  const GenerationSpec& spec = request.specs.front();
  OpenAiAnswer answer;
  answer.endpoint = request.endpoint;
  answer.id = answer_id;
  answer.created = SystemClock().UnixSeconds();
  answer.model = spec.model;
  answer.prompts = request.specs.size();
  answer.n = spec.sampling.n.value_or(1);
  answer.logprobs = spec.output.logprobs.has_value();
  answer.usage = request.usage;
  answer.echo = request.echo;
  return answer;
}

}  // namespace

void ServeGeneration(Frontend* frontend, const std::shared_ptr<Exchange>& exchange,
                     OpenAiRequest request, const std::string& request_id,
                     const std::string& answer_id) {
  OpenAiAnswer answer = AnswerTo(request, answer_id);
  const bool stream = request.delivery == OpenAiRequest::Delivery::kStream;
  std::shared_ptr<Serving> serving;
  if (stream) {
    serving = std::make_shared<StreamServing>(frontend, exchange, std::move(request),
                                              std::move(answer), request_id);
  } else {
    serving = std::make_shared<WholeServing>(frontend, exchange, std::move(request),
                                             std::move(answer), request_id);
  }
  exchange->Observe(serving);
  serving->Begin();
}

}  // namespace tessera::server
