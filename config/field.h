// One field table per settings struct. From a table follow parsing, unknown-key and range errors,
// the dump of effective values, the reference page and the reload diff (see schema.h), so a setting
// is declared once: a member with its default, and one row here.
//
//   const StructTable& LogTable() {
//     static const StructTable table{{
//         ChoiceField("level", &LogSettings::level, LevelChoices(), Reload::kLive, "Least level"),
//     }};
//     return table;
//   }
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "config/units.h"

namespace tessera {

// When a changed value takes effect: at once, or at the next start.
enum class Reload { kLive, kRestart };

enum class FieldKind { kScalar, kTextList, kStruct, kStructList };

struct StructTable;

// A list of structs behind a type-erased owner.
struct ListAccess {
  std::function<size_t(const void* owner)> size;
  std::function<void(void* owner, size_t size)> resize;
  std::function<void*(void* owner, size_t index)> at;
};

// One row. `owner` arguments point to the struct that the table describes.
struct Field {
  std::string key;
  FieldKind kind = FieldKind::kScalar;
  Reload reload = Reload::kRestart;
  std::string type;   // "time", "size", "integer", ... for the reference page
  std::string range;  // accepted values in words; empty if all of the type are
  std::string doc;

  // kScalar. `parse` leaves the owner alone unless it returns OK; its message reads after the
  // field's name ("must be ..."). `is_optional`: null means unset.
  bool is_optional = false;
  bool is_text = false;
  std::function<Status(absl::string_view text, void* owner)> parse;
  std::function<std::string(const void* owner)> render;
  std::function<void(void* owner)> unset;

  std::function<std::vector<std::string>*(void* owner)> text_list;  // kTextList

  const StructTable* table = nullptr;        // kStruct, kStructList
  std::function<void*(void* owner)> nested;  // kStruct
  ListAccess list;                           // kStructList
};

struct StructTable {
  std::vector<Field> fields;
};

// Accepted values, both ends included. `zero_word`, if set, is how 0 is written and read
// ("auto", "off"), whether or not 0 lies within the range.
template <typename T>
struct Range {
  T min = std::numeric_limits<T>::lowest();
  T max = std::numeric_limits<T>::max();
  std::string zero_word = "";
};

template <>
struct Range<ByteSize> {
  ByteSize min{0};
  ByteSize max{std::numeric_limits<int64_t>::max()};
  std::string zero_word = "";
};

template <>
struct Range<Duration> {
  Duration min{0};
  Duration max{std::numeric_limits<int64_t>::max()};
  std::string zero_word = "";
};

// The names of an enum's values.
template <typename E>
using Choices = std::vector<std::pair<std::string, E>>;

namespace internal {

inline StatusOr<int64_t> ParseAs(absl::string_view text, int64_t*) { return ParseInt(text); }
inline StatusOr<double> ParseAs(absl::string_view text, double*) { return ParseDouble(text); }
inline StatusOr<Duration> ParseAs(absl::string_view text, Duration*) { return ParseDuration(text); }
inline StatusOr<ByteSize> ParseAs(absl::string_view text, ByteSize*) { return ParseByteSize(text); }

inline absl::string_view TypeName(int64_t*) { return "integer"; }
inline absl::string_view TypeName(double*) { return "number"; }
inline absl::string_view TypeName(Duration*) { return "time"; }
inline absl::string_view TypeName(ByteSize*) { return "size"; }

template <typename T>
std::string RangeText(const Range<T>& range) {
  std::string text;
  const Range<T> all;
  const bool below = range.min != all.min;
  const bool above = range.max != all.max;
  if (below && above) {
    text = absl::StrCat(FormatValue(range.min), " to ", FormatValue(range.max));
  } else if (below) {
    text = absl::StrCat(FormatValue(range.min), " or more");
  } else if (above) {
    text = absl::StrCat("at most ", FormatValue(range.max));
  }
  if (!range.zero_word.empty()) {
    absl::StrAppend(&text, text.empty() ? "" : ", or ", "`", range.zero_word, "`");
  }
  return text;
}

template <typename T>
StatusOr<T> ParseInRange(absl::string_view text, const Range<T>& range) {
  if (!range.zero_word.empty() && text == range.zero_word) return T{};
  StatusOr<T> value = ParseAs(text, static_cast<T*>(nullptr));
  if (!value.ok()) {
    if (range.zero_word.empty()) return value;
    return absl::InvalidArgumentError(
        absl::StrCat(value.status().message(), ", or `", range.zero_word, "`"));
  }
  const bool zero_allowed = !range.zero_word.empty() && *value == T{};
  if (!zero_allowed && (*value < range.min || *value > range.max)) {
    return absl::InvalidArgumentError(absl::StrCat("must be ", RangeText(range)));
  }
  return value;
}

template <typename T>
std::string RenderInRange(const T& value, const Range<T>& range) {
  return !range.zero_word.empty() && value == T{} ? range.zero_word : FormatValue(value);
}

template <typename S, typename M>
const M& Get(const void* owner, M S::*member) {
  return static_cast<const S*>(owner)->*member;
}
template <typename S, typename M>
M& Get(void* owner, M S::*member) {
  return static_cast<S*>(owner)->*member;
}

inline Field Row(absl::string_view key, Reload reload, absl::string_view doc) {
  Field field;
  field.key = std::string(key);
  field.reload = reload;
  field.doc = std::string(doc);
  return field;
}

}  // namespace internal

// A number, time or size within `range`.
template <typename S, typename T>
Field NumberField(absl::string_view key, T S::*member, Range<T> range, Reload reload,
                  absl::string_view doc) {
  Field field = internal::Row(key, reload, doc);
  field.type = std::string(internal::TypeName(static_cast<T*>(nullptr)));
  field.range = internal::RangeText(range);
  field.parse = [member, range](absl::string_view text, void* owner) -> Status {
    TESSERA_ASSIGN_OR_RETURN(internal::Get(owner, member), internal::ParseInRange(text, range));
    return absl::OkStatus();
  };
  field.render = [member, range](const void* owner) {
    return internal::RenderInRange(internal::Get(owner, member), range);
  };
  return field;
}

// As `NumberField`; `null` (the default) leaves it unset.
template <typename S, typename T>
Field OptionalField(absl::string_view key, std::optional<T> S::*member, Range<T> range,
                    Reload reload, absl::string_view doc) {
  Field field = internal::Row(key, reload, doc);
  field.type = std::string(internal::TypeName(static_cast<T*>(nullptr)));
  field.range = internal::RangeText(range);
  field.is_optional = true;
  field.parse = [member, range](absl::string_view text, void* owner) -> Status {
    TESSERA_ASSIGN_OR_RETURN(internal::Get(owner, member), internal::ParseInRange(text, range));
    return absl::OkStatus();
  };
  field.render = [member, range](const void* owner) -> std::string {
    const std::optional<T>& value = internal::Get(owner, member);
    return value.has_value() ? internal::RenderInRange(*value, range) : "null";
  };
  field.unset = [member](void* owner) { internal::Get(owner, member).reset(); };
  return field;
}

template <typename S>
Field BoolField(absl::string_view key, bool S::*member, Reload reload, absl::string_view doc) {
  Field field = internal::Row(key, reload, doc);
  field.type = "true or false";
  field.parse = [member](absl::string_view text, void* owner) -> Status {
    TESSERA_ASSIGN_OR_RETURN(internal::Get(owner, member), ParseBool(text));
    return absl::OkStatus();
  };
  field.render = [member](const void* owner) { return FormatValue(internal::Get(owner, member)); };
  return field;
}

template <typename S>
Field TextField(absl::string_view key, std::string S::*member, Reload reload,
                absl::string_view doc) {
  Field field = internal::Row(key, reload, doc);
  field.type = "text";
  field.is_text = true;
  field.parse = [member](absl::string_view text, void* owner) -> Status {
    internal::Get(owner, member) = std::string(text);
    return absl::OkStatus();
  };
  field.render = [member](const void* owner) { return internal::Get(owner, member); };
  return field;
}

template <typename S>
Field TextListField(absl::string_view key, std::vector<std::string> S::*member, Reload reload,
                    absl::string_view doc) {
  Field field = internal::Row(key, reload, doc);
  field.kind = FieldKind::kTextList;
  field.type = "list of text";
  field.text_list = [member](void* owner) { return &internal::Get(owner, member); };
  return field;
}

template <typename S, typename E>
Field ChoiceField(absl::string_view key, E S::*member, const Choices<E>& choices, Reload reload,
                  absl::string_view doc) {
  Field field = internal::Row(key, reload, doc);
  field.type = "choice";
  for (const auto& [name, value] : choices) {
    absl::StrAppend(&field.range, field.range.empty() ? "" : ", ", name);
  }
  field.parse = [member, choices, range = field.range](absl::string_view text,
                                                       void* owner) -> Status {
    for (const auto& [name, value] : choices) {
      if (text != name) continue;
      internal::Get(owner, member) = value;
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat("must be one of: ", range));
  };
  field.render = [member, choices](const void* owner) -> std::string {
    for (const auto& [name, value] : choices) {
      if (value == internal::Get(owner, member)) return name;
    }
    return "";
  };
  return field;
}

template <typename S, typename T>
Field StructField(absl::string_view key, T S::*member, const StructTable& table,
                  absl::string_view doc) {
  Field field = internal::Row(key, Reload::kLive, doc);
  field.kind = FieldKind::kStruct;
  field.table = &table;
  field.nested = [member](void* owner) -> void* { return &internal::Get(owner, member); };
  return field;
}

// `reload` is that of entries that come or go; within an entry its own fields decide.
template <typename S, typename T>
Field StructListField(absl::string_view key, std::vector<T> S::*member, const StructTable& table,
                      Reload reload, absl::string_view doc) {
  Field field = internal::Row(key, reload, doc);
  field.kind = FieldKind::kStructList;
  field.type = "list";
  field.table = &table;
  field.list.size = [member](const void* owner) { return internal::Get(owner, member).size(); };
  field.list.resize = [member](void* owner, size_t size) {
    internal::Get(owner, member).resize(size);
  };
  field.list.at = [member](void* owner, size_t index) -> void* {
    return &internal::Get(owner, member).at(index);
  };
  return field;
}

}  // namespace tessera
