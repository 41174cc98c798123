// Times the engine itself, without a server: decoding steps of a batch, prompts, and both together.
//
//   engine_bench --zoo DIR --chain NAME[,NAME…] [--device cpu|cuda] [--kv auto|f16|bf16|f8]
//                [--isa auto|SET] [--threads N] [--cache-gib N] [--batch-tokens N]
//                [--numerics fast|deterministic] CASE…
//
// A case is a word: decode:BATCH:CONTEXT[:STEPS] (steps of BATCH sequences after CONTEXT tokens),
// serve:REQUESTS:PROMPT:OUTPUT (all at once, to the last token), prompt:REQUESTS:PROMPT (one token
// of output), mixed:REQUESTS:PROMPT:OUTPUT (of lengths up to these, greedy and sampled, all at once
// and then each alone: how many answers are equal), link (what the link to the device takes from
// the ring that loads go through), read:MEGABYTES (what as many threads read from so much host
// memory), peak (operations a second of as many threads, by type, of the processor's instruction
// set). Requests take the chains in turn. Each case prints one line of
// `name value` pairs; times are medians of the engine's own steps or wall time of the whole. A
// line `load` comes first: from the first look at the zoo until the weights are on the device, and
// what was brought there over the link (weights that the device makes itself are not).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "blockzoo/chain.h"
#include "blockzoo/zoo.h"
#include "kernels/ceilings.h"
#include "scheduler/engine.h"

namespace tessera::bench {
namespace {

using Seconds = std::chrono::duration<double>;

struct Options {
  std::string zoo;
  std::vector<std::string> chains;
  std::string device = "cuda";
  std::string kv = "auto";
  std::string isa = "auto";  // of the CPU backend
  int threads = 0;           // of the CPU backend; 0: as the daemon takes them
  uint64_t cache_gib = 16;
  uint32_t batch_tokens = 0;
  bool deterministic = false;
  std::vector<std::string> cases;
};

[[noreturn]] void Die(const std::string& text) {
  std::fprintf(stderr, "engine_bench: %s\n", text.c_str());
  std::exit(2);
}

template <typename T>
T Need(StatusOr<T> value) {
  if (!value.ok()) Die(std::string(value.status().message()));
  return std::move(*value);
}

uint64_t NumberOf(absl::string_view text) {
  uint64_t value = 0;
  if (!absl::SimpleAtoi(text, &value)) Die(absl::StrCat(text, " is no number"));
  return value;
}

kernels::CpuIsa IsaNamed(const std::string& name) {
  if (name == "auto") return kernels::CpuIsa::kAuto;
  for (const kernels::CpuIsa isa : kernels::SupportedCpuIsas()) {
    if (name == kernels::NameOf(isa)) return isa;
  }
  Die("this processor has no " + name);
}

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0) {
      options.cases.push_back(word);
      continue;
    }
    if (i + 1 == argc) Die(word + " wants a value");
    const std::string value = argv[++i];
    if (word == "--zoo") {
      options.zoo = value;
    } else if (word == "--chain") {
      options.chains = absl::StrSplit(value, ',');
    } else if (word == "--device") {
      options.device = value;
    } else if (word == "--isa") {
      options.isa = value;
    } else if (word == "--threads") {
      options.threads = static_cast<int>(NumberOf(value));
    } else if (word == "--kv") {
      options.kv = value;
    } else if (word == "--cache-gib") {
      options.cache_gib = NumberOf(value);
    } else if (word == "--batch-tokens") {
      options.batch_tokens = static_cast<uint32_t>(NumberOf(value));
    } else if (word == "--numerics") {
      if (value != "fast" && value != "deterministic") Die("no numerics " + value);
      options.deterministic = value == "deterministic";
    } else {
      Die("unknown flag " + word);
    }
  }
  if (options.zoo.empty() || options.chains.empty() || options.cases.empty()) {
    Die("--zoo, --chain and a case are needed");
  }
  return options;
}

// Counts what a stream has given, and keeps its tokens.
class CountingReader {
 public:
  CountingReader()
      : mailbox_(std::make_shared<scheduler::StreamMailbox>(scheduler::StreamMailbox::Options{
            .on_ready = [this] { Take(); }, .on_drained = nullptr, .reserve_tokens = 64})) {}

  [[nodiscard]] const std::shared_ptr<scheduler::StreamMailbox>& mailbox() const {
    return mailbox_;
  }
  [[nodiscard]] uint32_t tokens() const { return tokens_.load(); }
  // Of a stream that is done.
  [[nodiscard]] const std::vector<TokenId>& answer() const { return answer_; }
  [[nodiscard]] bool done() const { return done_.load(); }
  [[nodiscard]] bool failed() const { return failed_.load(); }

 private:
  void Take() {
    if (!mailbox_->Drain(batch_)) return;
    for (const scheduler::TokenEvent& event : batch_.tokens) answer_.push_back(event.token);
    tokens_ += static_cast<uint32_t>(batch_.tokens.size());
    if (batch_.error) {
      std::fprintf(stderr, "engine_bench: %s\n", std::string(batch_.error->message()).c_str());
      failed_ = true;
    }
    if (batch_.error || (!batch_.finished.empty() && batch_.finished.back().last)) done_ = true;
  }

  scheduler::MailboxBatch batch_;
  std::vector<TokenId> answer_;
  std::atomic<uint32_t> tokens_{0};
  std::atomic<bool> done_{false};
  std::atomic<bool> failed_{false};
  std::shared_ptr<scheduler::StreamMailbox> mailbox_;
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {
    backend_ = options.device == "cuda"
                   ? Need(kernels::MakeCudaBackend(0, options.zoo + "/device-costs.txt"))
                   : Need(kernels::MakeCpuBackend(IsaNamed(options.isa),
                                                  options.zoo + "/processor-costs.txt"));
    zoo_ =
        Need(blockzoo::Zoo::Open({.directory = options.zoo, .mode = blockzoo::ZooMode::kReadOnly}));
    blockzoo::CacheChoice cache;
    using Kv = blockzoo::CacheChoice::KvDType;
    cache.kv_dtype = options.kv == "f8"     ? Kv::kF8
                     : options.kv == "bf16" ? Kv::kBF16
                     : options.kv == "f16"  ? Kv::kF16
                                            : Kv::kAuto;
    binder_ = std::make_unique<blockzoo::ChainBinder>(backend_, cache);
    scheduler::EngineOptions engine;
    engine.cache_bytes = options.cache_gib << 30;
    engine.prefix_reuse = false;
    engine.threads = options.threads;
    batch_tokens_ = options.batch_tokens > 0 ? options.batch_tokens : backend_->batch_tokens();
    engine.max_batch_tokens = batch_tokens_;
    engine.max_running = 256;
    if (options.deterministic) engine.determinism = scheduler::Determinism::kAlways;
    engine.park_above_tokens = 1 << 20;
    const auto start = std::chrono::steady_clock::now();
    for (const std::string& name : options.chains) {
      const auto manifest = Need(zoo_->Chain(name));
      chains_.push_back(Need(binder_->Bind(manifest, *zoo_)));
    }
    // Nothing is under way any more: Bind waits for the device, which counts what has arrived.
    const auto bound = std::chrono::steady_clock::now();
    const uint64_t uploaded = backend_->memory().uploaded_bytes();
    engine_ = Need(scheduler::Engine::Create(engine, backend_, nullptr));
    for (uint32_t i = 0; i < chains_.size(); ++i) {
      const Status added = engine_->AddChain(
          ChainId(i), {.name = options.chains[i], .chain = chains_[i], .tokens = nullptr});
      if (!added.ok()) Die(std::string(added.message()));
    }
    const auto ready = std::chrono::steady_clock::now();
    std::printf(
        "load load_seconds %.3f engine_seconds %.3f weight_bytes %llu uploaded_bytes %llu\n",
        Seconds(bound - start).count(), Seconds(ready - bound).count(),
        static_cast<unsigned long long>(binder_->LiveWeightBytes()),
        static_cast<unsigned long long>(uploaded));
    std::printf("%s\n", engine_->DescribeMemory().c_str());
  }

  void Run(const std::string& text) {
    const std::vector<std::string> words = absl::StrSplit(text, ':');
    const auto number = [&](size_t i) {
      if (i >= words.size()) Die(text + " lacks a number");
      return static_cast<uint32_t>(NumberOf(words[i]));
    };
    if (words[0] == "decode") {
      Decode(number(1), number(2), words.size() > 3 ? number(3) : 48);
    } else if (words[0] == "serve") {
      Serve(text, number(1), number(2), number(3));
    } else if (words[0] == "prompt") {
      Serve(text, number(1), number(2), 1);
    } else if (words[0] == "mixed") {
      Mixed(text, number(1), number(2), number(3));
    } else if (words[0] == "link") {
      std::printf("link gb_s %.2f\n", Need(backend_->memory().MeasureLink()) * 1e-9);
    } else if (words[0] == "peak") {
      kernels::ThreadPool pool({.threads = Threads()});
      std::printf("peak");
      for (const auto& peak : kernels::MeasurePeaks(pool, IsaNamed(options_.isa))) {
        std::printf(" %s %.4g", peak.name, peak.ops_per_s);
      }
      std::printf("\n");
    } else if (words[0] == "read") {
      kernels::ThreadPool pool({.threads = Threads()});
      std::printf("read megabytes %u gb_s %.2f\n", number(1),
                  kernels::MeasureReadRate(pool, uint64_t{number(1)} << 20) * 1e-9);
    } else {
      Die("unknown case " + text);
    }
    std::fflush(stdout);
  }

 private:
  using Readers = std::vector<std::unique_ptr<CountingReader>>;

  [[nodiscard]] int Threads() const {
    return options_.threads > 0 ? options_.threads : kernels::ThreadPool::UsableCores();
  }

  // The `i`th request of a case.
  scheduler::GenerationRequest MakeRequest(uint32_t i, uint32_t prompt, uint32_t output) {
    const auto chain = static_cast<uint32_t>(i % chains_.size());
    const auto vocab = static_cast<uint32_t>(chains_[chain]->vocab());
    scheduler::GenerationRequest request;
    request.chain = ChainId(chain);
    for (uint32_t t = 0; t < prompt; ++t) request.prompt.push_back(random_() % vocab);
    request.sampling.temperature = 0;
    request.stopping.max_tokens = output;
    request.stopping.ignore_eos = true;
    return request;
  }

  std::unique_ptr<CountingReader> Submit(scheduler::GenerationRequest request) {
    request.id = RequestId(next_++);
    request.arrival = SystemClock().Now();
    auto reader = std::make_unique<CountingReader>();
    if (!engine_->inbox().Reserve().ok()) Die("the inbox is full");
    const Status submitted =
        engine_->inbox().Submit({.request = std::move(request), .mailbox = reader->mailbox()});
    if (!submitted.ok()) Die(std::string(submitted.message()));
    return reader;
  }

  Readers SubmitAll(uint32_t requests, uint32_t prompt, uint32_t output) {
    Readers readers;
    for (const auto& chain : chains_) {
      if (prompt + output <= chain->max_context()) continue;
      Die(absl::StrCat(prompt, " and ", output, " tokens exceed the context of ",
                       chain->max_context()));
    }
    for (uint32_t i = 0; i < requests; ++i) {
      readers.push_back(Submit(MakeRequest(i, prompt, output)));
    }
    return readers;
  }

  static void WaitAll(const Readers& readers) {
    for (const auto& reader : readers) {
      while (!reader->done()) std::this_thread::sleep_for(std::chrono::microseconds(200));
      if (reader->failed()) Die("a request failed");
    }
  }

  // `steps` steps, from the moment that every sequence has decoded for a while.
  void Decode(uint32_t batch, uint32_t context, uint32_t steps_wanted) {
    const uint32_t warm = std::min(24u, steps_wanted / 4);
    // Sequences that began early are ahead of the last by as many steps as the prompts took.
    const uint32_t lead = 1 + batch * context / batch_tokens_;
    const auto readers = SubmitAll(batch, context, warm + steps_wanted + lead + 16);
    const auto fewest = [&] {
      uint32_t least = UINT32_MAX;
      for (const auto& reader : readers) {
        if (reader->failed()) Die("a request failed");
        least = std::min(least, reader->tokens());
      }
      return least;
    };
    const auto wait_for = [&](uint32_t tokens) {
      while (fewest() < tokens) std::this_thread::sleep_for(std::chrono::microseconds(200));
    };
    wait_for(std::max(1u, warm));
    const scheduler::EngineStats before = engine_->Stats();
    const auto start = std::chrono::steady_clock::now();
    wait_for(fewest() + steps_wanted);
    const scheduler::EngineStats after = engine_->Stats();
    const double seconds = Seconds(std::chrono::steady_clock::now() - start).count();
    const auto steps = static_cast<double>(after.steps - before.steps);
    std::printf("decode batch %u context %u step_ms %.4f steps %.0f engine_us %.1f idle_us %.1f\n",
                batch, context, seconds * 1e3 / steps, steps,
                static_cast<double>(after.overhead_ns - before.overhead_ns) / steps / 1e3,
                static_cast<double>(after.device_idle_ns - before.device_idle_ns) / steps / 1e3);
    WaitAll(readers);
  }

  void Serve(const std::string& name, uint32_t requests, uint32_t prompt, uint32_t output) {
    const scheduler::EngineStats before = engine_->Stats();
    const auto start = std::chrono::steady_clock::now();
    WaitAll(SubmitAll(requests, prompt, output));
    const double seconds = Seconds(std::chrono::steady_clock::now() - start).count();
    const scheduler::EngineStats after = engine_->Stats();
    std::printf(
        "%s seconds %.4f output_tokens_per_s %.1f prompt_tokens_per_s %.1f steps %llu idle_ms "
        "%.2f\n",
        name.c_str(), seconds, requests * output / seconds,
        static_cast<double>(requests) * prompt / seconds,
        static_cast<unsigned long long>(after.steps - before.steps),
        static_cast<double>(after.device_idle_ns - before.device_idle_ns) / 1e6);
  }

  void Mixed(const std::string& name, uint32_t requests, uint32_t prompt, uint32_t output) {
    std::vector<scheduler::GenerationRequest> mixed;
    Readers readers;
    for (uint32_t i = 0; i < requests; ++i) {
      const auto tokens = static_cast<uint32_t>(1 + random_() % prompt);
      mixed.push_back(MakeRequest(i, tokens, static_cast<uint32_t>(1 + random_() % output)));
      scheduler::SamplingSettings& sampling = mixed.back().sampling;
      sampling.seed = random_();
      if (i % 2 == 1) sampling.temperature = 0.8f;
      if (i % 4 == 1) sampling.top_p = 0.9f;
    }
    const auto start = std::chrono::steady_clock::now();
    for (const scheduler::GenerationRequest& request : mixed) readers.push_back(Submit(request));
    WaitAll(readers);
    const double seconds = Seconds(std::chrono::steady_clock::now() - start).count();
    uint32_t equal = 0;
    for (uint32_t i = 0; i < requests; ++i) {
      Readers alone;
      alone.push_back(Submit(mixed[i]));
      WaitAll(alone);
      equal += alone.front()->answer() == readers[i]->answer() ? 1 : 0;
    }
    std::printf("%s seconds %.4f requests %u equal %u\n", name.c_str(), seconds, requests, equal);
  }

  const Options& options_;
  std::mt19937 random_{7};
  std::shared_ptr<const kernels::Backend> backend_;
  std::unique_ptr<blockzoo::Zoo> zoo_;
  std::unique_ptr<blockzoo::ChainBinder> binder_;
  std::vector<std::shared_ptr<const blockzoo::Chain>> chains_;
  std::unique_ptr<scheduler::Engine> engine_;
  uint32_t batch_tokens_ = 0;
  uint64_t next_ = 1;
};

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  const tessera::bench::Options options = tessera::bench::ParseOptions(argc, argv);
  tessera::bench::Bench bench(options);
  for (const std::string& text : options.cases) bench.Run(text);
  return 0;
}
