#include "config/foundation/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <memory>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "config/foundation/check.h"
#include "config/foundation/text.h"

namespace tessera {
namespace {

// Writes whole lines to stderr, or to memory while a capture lives. The lines come formatted: the
// sink must not add a pattern of its own, which would reinterpret text from outside.
class LineSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  void BeginCapture() {
    const std::lock_guard<std::mutex> lock(mutex_);
    TESSERA_CHECK(!capturing_);
    capturing_ = true;
    lines_.clear();
  }
  void EndCapture() {
    const std::lock_guard<std::mutex> lock(mutex_);
    capturing_ = false;
  }
  std::vector<std::string> Lines() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return lines_;
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    std::string line(message.payload.data(), message.payload.size());
    if (capturing_) {
      lines_.push_back(std::move(line));
      return;
    }
    line.push_back('\n');
    std::fwrite(line.data(), 1, line.size(), stderr);
  }
  void flush_() override { std::fflush(stderr); }

 private:
  bool capturing_ = false;
  std::vector<std::string> lines_;
};

struct LogState {
  std::shared_ptr<LineSink> sink = std::make_shared<LineSink>();
  spdlog::logger logger{"tessera", sink};
  std::atomic<LogLevel> level{LogLevel::kInfo};
  std::atomic<LogFormat> format{isatty(STDERR_FILENO) != 0 ? LogFormat::kConsole
                                                           : LogFormat::kJson};
  std::mutex instance_mutex;
  std::string instance;

  LogState() {
    logger.set_level(spdlog::level::trace);
    logger.flush_on(spdlog::level::trace);
  }
};

LogState& State() {
  static LogState* state = new LogState;
  return *state;
}

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

absl::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

// UTC with milliseconds: 2026-01-31T12:00:00.123Z.
std::string Timestamp() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return absl::StrFormat("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900, utc.tm_mon + 1,
                         utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                         static_cast<int>(ms % 1000));
}

// Letters, digits and a few marks: needs no quotes on the console.
bool IsPlainWord(absl::string_view text) {
  if (text.empty()) return false;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '-' || c == '.' || c == '/' || c == ':';
    if (!plain) return false;
  }
  return true;
}

struct ValueWriter {
  LogFormat format;
  std::string* out;

  void operator()(bool value) const { *out += value ? "true" : "false"; }
  void operator()(int64_t value) const { absl::StrAppend(out, value); }
  void operator()(uint64_t value) const { absl::StrAppend(out, value); }
  void operator()(double value) const {
    if (std::isfinite(value)) {
      absl::StrAppend(out, value);
    } else {
      // JSON has no such numbers.
      AppendQuoted(std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf", out);
    }
  }
  void operator()(absl::string_view value) const {
    if (format == LogFormat::kConsole && IsPlainWord(value)) {
      absl::StrAppend(out, value);
    } else {
      AppendQuoted(value, out);
    }
  }
};

std::string JsonLine(LogLevel level, absl::string_view event, LogFields fields,
                     absl::string_view instance) {
  std::string line = absl::StrCat("{\"time\":\"", Timestamp(), "\",\"level\":\"", LevelName(level),
                                  "\",\"event\":");
  AppendQuoted(event, &line);
  if (!instance.empty()) {
    line += ",\"instance\":";
    AppendQuoted(instance, &line);
  }
  for (const LogField& field : fields) {
    line.push_back(',');
    AppendQuoted(field.key, &line);
    line.push_back(':');
    std::visit(ValueWriter{LogFormat::kJson, &line}, field.value.value());
  }
  line.push_back('}');
  return line;
}

std::string ConsoleLine(LogLevel level, absl::string_view event, LogFields fields) {
  std::string line = absl::StrFormat("%s %-7s ", Timestamp(), LevelName(level));
  const ValueWriter writer{LogFormat::kConsole, &line};
  writer(event);
  for (const LogField& field : fields) {
    line.push_back(' ');
    writer(field.key);
    line.push_back('=');
    std::visit(writer, field.value.value());
  }
  return line;
}

}  // namespace

void SetLogLevel(LogLevel level) { State().level.store(level, std::memory_order_relaxed); }

LogLevel GetLogLevel() { return State().level.load(std::memory_order_relaxed); }

void SetLogFormat(LogFormat format) {
  LogFormat resolved = format;
  if (format == LogFormat::kAuto) {
    resolved = isatty(STDERR_FILENO) != 0 ? LogFormat::kConsole : LogFormat::kJson;
  }
  State().format.store(resolved, std::memory_order_relaxed);
}

void SetLogInstance(absl::string_view name) {
  const std::lock_guard<std::mutex> lock(State().instance_mutex);
  State().instance = std::string(name);
}

bool LogEnabled(LogLevel level) { return level >= GetLogLevel(); }

void Log(LogLevel level, absl::string_view event, LogFields fields) {
  if (!LogEnabled(level)) return;
  LogState& state = State();
  std::string line;
  if (state.format.load(std::memory_order_relaxed) == LogFormat::kConsole) {
    line = ConsoleLine(level, event, fields);
  } else {
    std::string instance;
    {
      const std::lock_guard<std::mutex> lock(state.instance_mutex);
      instance = state.instance;
    }
    line = JsonLine(level, event, fields, instance);
  }
  state.logger.log(SpdlogLevel(level), spdlog::string_view_t(line.data(), line.size()));
}

ScopedLogCapture::ScopedLogCapture() { State().sink->BeginCapture(); }
ScopedLogCapture::~ScopedLogCapture() { State().sink->EndCapture(); }
std::vector<std::string> ScopedLogCapture::Lines() const { return State().sink->Lines(); }

}  // namespace tessera
