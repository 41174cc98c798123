#include "config/settings.h"

namespace tessera {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Reload kLive = Reload::kLive;
constexpr Reload kRestart = Reload::kRestart;
using Ints = Range<int64_t>;
using Reals = Range<double>;
using Times = Range<Duration>;
using Sizes = Range<ByteSize>;

const StructTable& ServerTable() {
  using S = ServerSettings;
  static const auto* table = new StructTable{{
      TextField("name", &S::name, kRestart, "This instance's name in logs"),
      NumberField("drain_timeout", &S::drain_timeout, Times{Duration(0), hours(24)}, kLive,
                  "How long a stopping server lets running requests finish"),
  }};
  return *table;
}

const StructTable& KeepaliveTable() {
  using S = KeepaliveSettings;
  static const auto* table = new StructTable{{
      NumberField("time", &S::time, Times{seconds(1), hours(24)}, kRestart,
                  "Silence after which a connection is pinged"),
      NumberField("timeout", &S::timeout, Times{milliseconds(100), hours(1)}, kRestart,
                  "How long a ping may stay without an answer"),
      NumberField("min_client_interval", &S::min_client_interval, Times{Duration(0), hours(1)},
                  kRestart, "Clients that ping more often are disconnected"),
  }};
  return *table;
}

const StructTable& GrpcTable() {
  using S = GrpcSettings;
  static const auto* table = new StructTable{{
      TextField("address", &S::address, kRestart, "HOST:PORT, or unix:PATH"),
      NumberField("max_message", &S::max_message, Sizes{KiB(4), GiB(1)}, kRestart,
                  "Largest message accepted"),
      NumberField("max_connection_age", &S::max_connection_age,
                  Times{seconds(1), hours(720), "off"}, kRestart,
                  "Connections are closed, once their requests end, after this time"),
      NumberField("max_streams", &S::max_streams, Ints{1, 1 << 20}, kRestart,
                  "Concurrent calls on one connection"),
      StructField("keepalive", &S::keepalive, KeepaliveTable(), "Detection of dead connections"),
  }};
  return *table;
}

const StructTable& HttpTable() {
  using S = HttpSettings;
  static const auto* table = new StructTable{{
      TextField("address", &S::address, kRestart, "HOST:PORT; \"\" turns HTTP off"),
      NumberField("max_body", &S::max_body, Sizes{KiB(4), GiB(1)}, kRestart,
                  "Largest request body accepted"),
      NumberField("max_headers", &S::max_headers, Ints{8, 1024}, kRestart,
                  "Most headers of a request"),
      NumberField("max_header_bytes", &S::max_header_bytes, Sizes{KiB(1), MiB(1)}, kRestart,
                  "Most bytes of a request's headers together"),
      NumberField("max_connections", &S::max_connections, Ints{1, 1 << 20}, kRestart,
                  "Connections open at once"),
      NumberField("sse_ping", &S::sse_ping, Times{seconds(1), hours(1), "off"}, kRestart,
                  "Silence after which a stream gets a comment line"),
  }};
  return *table;
}

const StructTable& AdminTable() {
  using S = AdminSettings;
  static const auto* table = new StructTable{{
      TextField("address", &S::address, kRestart,
                "unix:PATH; \"\" is the socket admin.sock in the store's folder"),
  }};
  return *table;
}

const StructTable& MetricsTable() {
  using S = MetricsSettings;
  static const auto* table = new StructTable{{
      TextField("address", &S::address, kRestart, "HOST:PORT of /metrics; \"\" turns it off"),
  }};
  return *table;
}

const StructTable& ListenTable() {
  using S = ListenSettings;
  static const auto* table = new StructTable{{
      BoolField(
          "insecure_public", &S::insecure_public, kRestart,
          "Allow addresses that other machines reach, although callers are not authenticated"),
      StructField("grpc", &S::grpc, GrpcTable(), "The gRPC services"),
      StructField("http", &S::http, HttpTable(), "The OpenAI-compatible HTTP interface"),
      StructField("admin", &S::admin, AdminTable(), "The administration service"),
      StructField("metrics", &S::metrics, MetricsTable(), "Prometheus metrics"),
  }};
  return *table;
}

const StructTable& KvTable() {
  using S = KvSettings;
  static const auto* table = new StructTable{{
      ChoiceField("dtype", &S::dtype,
                  Choices<KvDtype>{{"auto", KvDtype::kAuto},
                                   {"f32", KvDtype::kF32},
                                   {"f16", KvDtype::kF16},
                                   {"bf16", KvDtype::kBf16},
                                   {"f8", KvDtype::kF8}},
                  kRestart, "Element type of cached keys and values; auto: as the chain asks"),
      BoolField("key_statistics", &S::key_statistics, kRestart,
                "Keep statistics of the keys of each logical page"),
  }};
  return *table;
}

const StructTable& EngineTable() {
  using S = EngineSettings;
  static const auto* table = new StructTable{{
      NumberField("threads", &S::threads, Ints{1, 1024, "auto"}, kRestart,
                  "Compute threads; auto: one for each core"),
      NumberField("memory", &S::memory, Sizes{MiB(1), GiB(1 << 14), "auto"}, kRestart,
                  "Memory of the key-value cache; auto: by memory_fraction"),
      NumberField("memory_fraction", &S::memory_fraction, Reals{0.01, 0.95}, kRestart,
                  "Share of the memory free at start to use, weights included"),
      StructField("kv", &S::kv, KvTable(), "The key-value cache"),
      NumberField("max_batch_tokens", &S::max_batch_tokens, Ints{16, 1 << 20, "auto"}, kRestart,
                  "Most tokens of one step; auto: 512 on the processor, 8192 on a CUDA device"),
      NumberField("max_running", &S::max_running, Ints{1, 1 << 16}, kRestart,
                  "Most sequences computed at once"),
      ChoiceField("deterministic", &S::deterministic,
                  Choices<DeterministicMode>{{"off", DeterministicMode::kOff},
                                             {"on_request", DeterministicMode::kOnRequest},
                                             {"always", DeterministicMode::kAlways}},
                  kRestart,
                  "Whose tokens do not depend on what else runs, which costs a CUDA device memory, "
                  "time at start and speed; the processor's never do"),
      ChoiceField(
          "device", &S::device,
          Choices<DeviceKind>{
              {"auto", DeviceKind::kAuto}, {"cpu", DeviceKind::kCpu}, {"cuda", DeviceKind::kCuda}},
          kRestart, "What computes; auto: a CUDA device where there is one"),
      NumberField("device_index", &S::device_index, Ints{0, 63}, kRestart,
                  "Which CUDA device, as the driver counts them"),
      ChoiceField(
          "isa", &S::isa,
          Choices<CpuIsa>{{"auto", CpuIsa::kAuto},
                          {"amx", CpuIsa::kAmx},
                          {"avx512", CpuIsa::kAvx512},
                          {"avx2", CpuIsa::kAvx2}},
          kRestart,
          "Instruction set; auto: what TESSERA_CPU_ISA names, else the best that the processor "
          "has"),
      NumberField("step_watchdog", &S::step_watchdog, Times{seconds(1), hours(1), "off"}, kRestart,
                  "Without a step for this time while requests run, the engine is reported stuck"),
  }};
  return *table;
}

const StructTable& StoreTable() {
  using S = StoreSettings;
  static const auto* table = new StructTable{{
      TextField("root", &S::root, kRestart, "The folder of the block zoo"),
      NumberField("reserve", &S::reserve, Sizes{ByteSize{0}, GiB(1 << 20)}, kLive,
                  "Imports stop before the disk has less than this free"),
  }};
  return *table;
}

const StructTable& SamplingTable() {
  using S = SamplingDefaults;
  static const auto* table = new StructTable{{
      OptionalField("temperature", &S::temperature, Reals{0, 2}, kLive, "0 takes the likeliest"),
      OptionalField("top_p", &S::top_p, Reals{1e-6, 1}, kLive, "Probability mass kept"),
      OptionalField("top_k", &S::top_k, Ints{0, 1 << 20}, kLive, "Tokens kept; 0 keeps all"),
      OptionalField("min_p", &S::min_p, Reals{0, 1}, kLive,
                    "Least probability kept, relative to the likeliest"),
      OptionalField("typical_p", &S::typical_p, Reals{1e-6, 1}, kLive, "Typical mass kept"),
      OptionalField("repetition_penalty", &S::repetition_penalty, Reals{1e-6, 2}, kLive,
                    "Divides the logits of tokens seen in prompt or output"),
      OptionalField("presence_penalty", &S::presence_penalty, Reals{-2, 2}, kLive,
                    "Subtracted from tokens seen in the output"),
      OptionalField("frequency_penalty", &S::frequency_penalty, Reals{-2, 2}, kLive,
                    "Subtracted for each time that a token was put out"),
      OptionalField("max_tokens", &S::max_tokens, Ints{1, 1 << 24}, kLive,
                    "Tokens generated; unset: up to the context's end"),
  }};
  return *table;
}

const StructTable& ModelTable() {
  using S = ModelSettings;
  static const auto* table = new StructTable{{
      TextField("name", &S::name, kRestart, "What users call the model"),
      TextField("chain", &S::chain, kRestart, "Its chain in the zoo; \"\" is the same name"),
      BoolField("preload", &S::preload, kRestart, "Load at start instead of on first use"),
      NumberField("max_context", &S::max_context, Ints{16, 1 << 24, "auto"}, kRestart,
                  "Most tokens of prompt and answer; auto: the chain's own"),
      TextField("chat_template", &S::chat_template, kRestart,
                "artifact (the chain's own), none, or the path of a template"),
      TextField("chat_output", &S::chat_output, kRestart,
                "How calls and reasoning are read from answers: auto (by the template), none, or "
                "a format"),
      StructField("defaults", &S::defaults, SamplingTable(), "Sampling where a request is silent"),
  }};
  return *table;
}

const StructTable& StopTable() {
  using S = StopLimits;
  static const auto* table = new StructTable{{
      NumberField("count", &S::count, Ints{0, 1024}, kLive, "Most stop strings of a request"),
      NumberField("bytes", &S::bytes, Sizes{ByteSize{1}, KiB(64)}, kLive, "Longest stop string"),
  }};
  return *table;
}

const StructTable& StreamBufferTable() {
  using S = StreamBufferLimits;
  static const auto* table = new StructTable{{
      NumberField("tokens", &S::tokens, Ints{16, 1 << 24}, kLive,
                  "Tokens unread by a client before its sequence is parked"),
      NumberField("bytes", &S::bytes, Sizes{KiB(1), GiB(1)}, kLive,
                  "Bytes unread by a client before its sequence is parked"),
      NumberField("stall", &S::stall, Times{milliseconds(100), hours(1)}, kLive,
                  "A sequence parked for this time is aborted"),
  }};
  return *table;
}

const StructTable& LimitTable() {
  using S = LimitSettings;
  static const auto* table = new StructTable{{
      NumberField("n", &S::n, Ints{1, 128}, kLive, "Most answers to one request"),
      NumberField("logprobs", &S::logprobs, Ints{0, 1024}, kLive,
                  "Most alternatives with log-probability for each token"),
      NumberField("prompt_logprobs", &S::prompt_logprobs, Ints{0, 1024}, kLive,
                  "The same for prompt tokens"),
      NumberField("logit_bias", &S::logit_bias, Ints{0, 1 << 20}, kLive, "Most biased tokens"),
      StructField("stop", &S::stop, StopTable(), "Stop strings"),
      NumberField("max_request_time", &S::max_request_time, Times{milliseconds(1), hours(720)},
                  kLive, "Longest time from arrival to end"),
      StructField("stream_buffer", &S::stream_buffer, StreamBufferTable(), "Slow readers"),
  }};
  return *table;
}

const StructTable& AdmissionTable() {
  using S = AdmissionSettings;
  static const auto* table = new StructTable{{
      NumberField("max_waiting_requests", &S::max_waiting_requests, Ints{1, 1 << 20}, kLive,
                  "Requests queued; more are refused at once"),
      NumberField("max_waiting_tokens", &S::max_waiting_tokens, Ints{1, int64_t{1} << 40}, kLive,
                  "Prompt tokens queued; more are refused at once"),
      NumberField("max_wait", &S::max_wait, Times{Duration(0), hours(24)}, kLive,
                  "Longest time in the queue"),
      ChoiceField("policy", &S::policy, Choices<AdmissionPolicy>{{"fcfs", AdmissionPolicy::kFcfs}},
                  kRestart, "Who goes next; fcfs: first come, first served"),
  }};
  return *table;
}

const StructTable& PrefixCacheTable() {
  using S = PrefixCacheSettings;
  static const auto* table = new StructTable{{
      BoolField("enabled", &S::enabled, kRestart, "Reuse the cache of equal prompt starts"),
  }};
  return *table;
}

const StructTable& LogTable() {
  using S = LogSettings;
  static const auto* table = new StructTable{{
      ChoiceField("level", &S::level,
                  Choices<LogLevel>{{"debug", LogLevel::kDebug},
                                    {"info", LogLevel::kInfo},
                                    {"warning", LogLevel::kWarning},
                                    {"error", LogLevel::kError}},
                  kLive, "Least level written"),
      ChoiceField("format", &S::format,
                  Choices<LogFormat>{{"auto", LogFormat::kAuto},
                                     {"json", LogFormat::kJson},
                                     {"console", LogFormat::kConsole}},
                  kLive, "auto: console text on a terminal, JSON elsewhere"),
  }};
  return *table;
}

}  // namespace

const ModelSettings* Settings::FindModel(absl::string_view name) const {
  for (const ModelSettings& model : models) {
    if (model.name == name) return &model;
  }
  return nullptr;
}

const StructTable& SettingsTable() {
  using S = Settings;
  static const auto* table = new StructTable{{
      NumberField("version", &S::version, Ints{1}, kRestart, "Version of this file's form"),
      StructField("server", &S::server, ServerTable(), "The process"),
      StructField("listen", &S::listen, ListenTable(), "Where it is reached"),
      StructField("engine", &S::engine, EngineTable(), "Computing"),
      StructField("store", &S::store, StoreTable(), "The block zoo"),
      StructListField(
          "models", &S::models, ModelTable(), kRestart,
          "Chains with settings of their own; the zoo's others are served with defaults"),
      StructField("limits", &S::limits, LimitTable(), "Bounds of every request"),
      StructField("admission", &S::admission, AdmissionTable(), "The queue"),
      StructField("prefix_cache", &S::prefix_cache, PrefixCacheTable(), "Reuse of prompt starts"),
      StructField("log", &S::log, LogTable(), "Logs on stderr"),
  }};
  return *table;
}

}  // namespace tessera
