#include "blockzoo/manifest_text.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {

std::string JsonText(absl::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string JsonNumber(double value) {
  if (!std::isfinite(value)) return "null";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::general,
                                 /*precision=*/17);
  std::string text(buffer, end.ptr);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

namespace {

struct ValueWriter {
  std::string operator()(int64_t value) const { return std::to_string(value); }
  std::string operator()(double value) const { return JsonNumber(value); }
  std::string operator()(const std::string& value) const { return JsonText(value); }
  std::string operator()(const std::vector<double>& values) const {
    std::string text = "[";
    for (size_t i = 0; i < values.size(); ++i) {
      absl::StrAppend(&text, i == 0 ? "" : ",", JsonNumber(values[i]));
    }
    return text + "]";
  }
};

}  // namespace

std::string JsonObject(const Attributes& attributes) {
  std::string text = "{";
  for (const auto& [name, value] : attributes.values()) {
    absl::StrAppend(&text, text.size() == 1 ? "" : ",", JsonText(name), ":",
                    std::visit(ValueWriter{}, value));
  }
  return text + "}";
}

}  // namespace tessera::blockzoo
