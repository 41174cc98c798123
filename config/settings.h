// Every setting of Tessera with its default. The rows that read, document and compare them are in
// settings.cc; a value never has a second default elsewhere. Immutable once loaded (snapshot.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/field.h"
#include "config/foundation/clock.h"
#include "config/foundation/log.h"
#include "config/units.h"

namespace tessera {

// The newest `version` that this program understands.
inline constexpr int64_t kSettingsVersion = 1;

struct ServerSettings {
  std::string name = "tessera";
  Duration drain_timeout = std::chrono::seconds(120);
};

struct KeepaliveSettings {
  Duration time = std::chrono::seconds(60);
  Duration timeout = std::chrono::seconds(20);
  Duration min_client_interval = std::chrono::seconds(10);
};

struct GrpcSettings {
  std::string address = "127.0.0.1:50051";
  ByteSize max_message = MiB(16);
  Duration max_connection_age = std::chrono::minutes(30);  // 0: without end
  int64_t max_streams = 1024;                              // on one connection
  KeepaliveSettings keepalive;
};

struct HttpSettings {
  std::string address = "127.0.0.1:8080";  // empty: off
  ByteSize max_body = MiB(8);
  int64_t max_headers = 64;
  ByteSize max_header_bytes = KiB(16);  // all headers together
  int64_t max_connections = 1024;
  Duration sse_ping = std::chrono::seconds(15);  // 0: off
};

struct AdminSettings {
  std::string address = "";  // `unix:PATH`; empty: the socket `admin.sock` in the store's folder
};

struct MetricsSettings {
  std::string address = "127.0.0.1:9400";  // empty: off
};

struct ListenSettings {
  // Lets addresses other than loopback be used although nothing authenticates callers.
  bool insecure_public = false;
  GrpcSettings grpc;
  HttpSettings http;
  AdminSettings admin;
  MetricsSettings metrics;
};

enum class KvDtype { kAuto, kF32, kF16, kBf16, kF8 };
enum class CpuIsa { kAuto, kAmx, kAvx512, kAvx2 };

struct KvSettings {
  KvDtype dtype = KvDtype::kAuto;
  bool key_statistics = false;
};

// What computes; kAuto: a CUDA device where there is one, else the processor.
enum class DeviceKind { kAuto, kCpu, kCuda };

// Whose tokens must not depend on what else runs.
enum class DeterministicMode { kOff, kOnRequest, kAlways };

struct EngineSettings {
  int64_t threads = 0;           // 0: one for each core
  ByteSize memory{0};            // of the key-value cache; 0: by `memory_fraction`
  double memory_fraction = 0.5;  // of what is free at start, weights included
  KvSettings kv;
  int64_t max_batch_tokens = 0;  // 0: as the device likes
  int64_t max_running = 256;
  DeterministicMode deterministic = DeterministicMode::kOff;
  DeviceKind device = DeviceKind::kAuto;
  int64_t device_index = 0;  // of several CUDA devices
  CpuIsa isa = CpuIsa::kAuto;
  Duration step_watchdog = std::chrono::seconds(30);  // 0: off
};

struct StoreSettings {
  std::string root = "/var/lib/tessera/store";
  ByteSize reserve = GiB(1);
};

// Sampling values for requests that leave them out; unset ones come from the chain, then from the
// program's defaults.
struct SamplingDefaults {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<double> min_p;
  std::optional<double> typical_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::optional<int64_t> max_tokens;
};

struct ModelSettings {
  std::string name;
  std::string chain;  // empty: the chain called `name`
  bool preload = false;
  int64_t max_context = 0;                 // 0: the chain's own
  std::string chat_template = "artifact";  // `artifact`, `none` or a path
  std::string chat_output = "auto";        // `auto`, `none` or an answer format
  SamplingDefaults defaults;

  // The chain's name in the zoo.
  [[nodiscard]] const std::string& ChainName() const { return chain.empty() ? name : chain; }
};

struct StopLimits {
  int64_t count = 16;
  ByteSize bytes{256};  // of each
};

struct StreamBufferLimits {
  int64_t tokens = 2048;
  ByteSize bytes = KiB(256);
  Duration stall = std::chrono::seconds(30);
};

struct LimitSettings {
  int64_t n = 8;
  int64_t logprobs = 20;
  int64_t prompt_logprobs = 5;
  int64_t logit_bias = 1024;  // entries
  StopLimits stop;
  Duration max_request_time = std::chrono::minutes(10);
  StreamBufferLimits stream_buffer;
};

enum class AdmissionPolicy { kFcfs };

struct AdmissionSettings {
  int64_t max_waiting_requests = 512;
  int64_t max_waiting_tokens = 400'000;
  Duration max_wait = std::chrono::seconds(30);
  AdmissionPolicy policy = AdmissionPolicy::kFcfs;
};

struct PrefixCacheSettings {
  bool enabled = true;
};

struct LogSettings {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kAuto;
};

struct Settings {
  int64_t version = kSettingsVersion;
  ServerSettings server;
  ListenSettings listen;
  EngineSettings engine;
  StoreSettings store;
  std::vector<ModelSettings> models;
  LimitSettings limits;
  AdmissionSettings admission;
  PrefixCacheSettings prefix_cache;
  LogSettings log;

  // The entry of `models` with this name, or nullptr.
  [[nodiscard]] const ModelSettings* FindModel(absl::string_view name) const;
};

// The table whose owner is `Settings`.
[[nodiscard]] const StructTable& SettingsTable();

}  // namespace tessera
