// Structured logs on stderr: one event a line, as JSON or as console text.
//
//   LogInfo("chain_loaded", {{"chain", name}, {"bytes", size}, {"seconds", 0.42}});
//
// Every string is escaped, so a value can neither forge a line nor move a terminal's cursor. Text
// of prompts and answers is never passed in: log lengths and ids. All functions are thread-safe;
// level and format may change at any time.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// kAuto: console text if stderr is a terminal, JSON otherwise.
enum class LogFormat { kAuto, kJson, kConsole };

// A value of a log field. Text is only viewed: it must outlive the call, as a temporary does.
class LogValue {
 public:
  template <typename T>
  requires(std::is_arithmetic_v<T>) LogValue(T value)
      : value_(Widen(value)) {}  // NOLINT: implicit, for field lists
  LogValue(const char* text) : value_(absl::string_view(text)) {}         // NOLINT: as above
  LogValue(const std::string& text) : value_(absl::string_view(text)) {}  // NOLINT: as above
  LogValue(absl::string_view text) : value_(text) {}                      // NOLINT: as above

  using Variant = std::variant<bool, int64_t, uint64_t, double, absl::string_view>;
  [[nodiscard]] const Variant& value() const { return value_; }

 private:
  template <typename T>
  static Variant Widen(T value) {
    if constexpr (std::is_same_v<T, bool>) {
      return Variant(value);
    } else if constexpr (std::is_floating_point_v<T>) {
      return Variant(static_cast<double>(value));
    } else if constexpr (std::is_signed_v<T>) {
      return Variant(static_cast<int64_t>(value));
    } else {
      return Variant(static_cast<uint64_t>(value));
    }
  }

  Variant value_;
};

struct LogField {
  absl::string_view key;
  LogValue value;
};

using LogFields = std::initializer_list<LogField>;

void SetLogLevel(LogLevel level);
[[nodiscard]] LogLevel GetLogLevel();
void SetLogFormat(LogFormat format);
// The instance's name, which every line carries as `instance`; empty (the default) leaves it out.
void SetLogInstance(absl::string_view name);

// True if a line of `level` would be written: for fields that are costly to gather.
[[nodiscard]] bool LogEnabled(LogLevel level);

// Writes one line. `event` is a constant snake_case word.
void Log(LogLevel level, absl::string_view event, LogFields fields = {});
inline void LogDebug(absl::string_view event, LogFields fields = {}) {
  Log(LogLevel::kDebug, event, fields);
}
inline void LogInfo(absl::string_view event, LogFields fields = {}) {
  Log(LogLevel::kInfo, event, fields);
}
inline void LogWarning(absl::string_view event, LogFields fields = {}) {
  Log(LogLevel::kWarning, event, fields);
}
inline void LogError(absl::string_view event, LogFields fields = {}) {
  Log(LogLevel::kError, event, fields);
}

// While it lives, lines go to memory instead of stderr. One at a time; for tests.
class ScopedLogCapture {
 public:
  ScopedLogCapture();
  ~ScopedLogCapture();
  ScopedLogCapture(const ScopedLogCapture&) = delete;
  ScopedLogCapture& operator=(const ScopedLogCapture&) = delete;

  // The lines so far, without their newlines.
  [[nodiscard]] std::vector<std::string> Lines() const;
};

}  // namespace tessera
