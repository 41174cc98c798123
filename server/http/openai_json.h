// A request's JSON body: parsed within limits, then read field by field with every fault gathered.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/core/errors.h"

namespace tessera::server {

// INVALID_ARGUMENT, with the place, unless `text` is one JSON object of UTF-8 that is nested at
// most 64 deep and has at most a million values (a value takes many times its text in memory).
[[nodiscard]] StatusOr<nlohmann::json> ParseJsonBody(absl::string_view text);

// The value on one line; a string in it that is not UTF-8 is repaired.
[[nodiscard]] std::string DumpJson(const nlohmann::json& value);

// Faults of one request. Keeps the first 64. A fault of a field keeps later ones of its parts and
// of what it is part of out, because they would follow from it.
class FieldErrors {
 public:
  void Invalid(std::string field, std::string description);
  void Unsupported(std::string field, std::string description);
  // The field, a part of it ("stop[1]" of "stop") or what it is part of has a fault.
  [[nodiscard]] bool Has(absl::string_view field) const;
  // OK without faults; UNIMPLEMENTED when all are of the second kind, else INVALID_ARGUMENT.
  [[nodiscard]] Status Finish() &&;

 private:
  std::vector<FieldViolation> invalid_;
  std::vector<FieldViolation> unsupported_;
};

// The fields of one JSON object. null means "not given" everywhere; a value of another type than
// asked for is a fault and then "not given". Object and errors outlive it.
class FieldReader {
 public:
  // `path` comes before each field's name in faults ("messages[0].").
  FieldReader(const nlohmann::json& object, std::string path, FieldErrors* errors);

  // The value, or null; the field counts as known from now on.
  [[nodiscard]] const nlohmann::json* Find(const char* field);
  [[nodiscard]] std::optional<bool> Flag(const char* field);
  [[nodiscard]] std::optional<double> Number(const char* field);
  // Whole numbers written as 16.0 are taken, too.
  [[nodiscard]] std::optional<int64_t> Integer(const char* field);
  [[nodiscard]] std::optional<uint32_t> Count(const char* field);
  [[nodiscard]] std::optional<std::string> Text(const char* field);
  // Lists of token ids and of strings; empty when not given.
  [[nodiscard]] std::vector<uint32_t> Ids(const char* field);
  [[nodiscard]] std::vector<std::string> Texts(const char* field);

  // Known, without effect here.
  void Ignore(std::initializer_list<const char*> fields);
  // A fault if the field asks for something: it is not null, false, or empty.
  void Refuse(const char* field, absl::string_view why);
  // Fields that nobody asked for.
  [[nodiscard]] uint32_t CountUnknown() const;

  void Invalid(absl::string_view field, std::string description);
  void Unsupported(absl::string_view field, std::string description);

 private:
  const nlohmann::json& object_;
  const std::string path_;
  FieldErrors* const errors_;
  std::set<std::string> known_;
};

// The id if `value` is one: a whole number from 0 to 4294967295.
[[nodiscard]] std::optional<uint32_t> IdOf(const nlohmann::json& value);

}  // namespace tessera::server
