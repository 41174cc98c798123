// The values of a template: what Python's would be, immutable but for namespaces.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/jinja/marked_text.h"

namespace tessera::server::jinja {

class Value;
struct Call;
class Interpreter;

using List = std::vector<Value>;

struct Undefined {
  std::string hint;  // "'x' is undefined"
};
struct None {};
struct Sequence {
  std::shared_ptr<const List> items;
  bool tuple = false;
};
// In insertion order. Keys are strings or numbers.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  [[nodiscard]] const Value* Find(const Value& key) const;
  [[nodiscard]] const Value* Find(absl::string_view key) const;
  // Replaces the value of an equal key, or appends.
  void Set(Value key, Value value);
};
// The one mutable value: namespace(). Also `loop`, whose fields are set per iteration.
struct Namespace {
  const char* type_name = "namespace";
  std::vector<std::pair<std::string, Value>> fields;
  [[nodiscard]] const Value* Find(absl::string_view name) const;
  void Set(absl::string_view name, Value value);
};
struct Function {
  std::string name;
  std::function<StatusOr<Value>(Interpreter&, const Call&)> call;
};

class Value {
 public:
  Value() : data_(Undefined{}) {}
  static Value MakeUndefined(std::string hint) { return Value(Undefined{std::move(hint)}); }
  static Value MakeNone() { return Value(None{}); }
  static Value Bool(bool value) { return Value(value); }
  static Value Int(int64_t value) { return Value(value); }
  static Value Float(double value) { return Value(value); }
  static Value Text(MarkedText text);
  static Value Text(std::string text, TextOrigin origin = TextOrigin::kTemplate);
  static Value MakeList(List items);
  static Value MakeTuple(List items);
  static Value MakeDict(Dict dict);
  static Value MakeNamespace(std::shared_ptr<Namespace> names) { return Value(std::move(names)); }
  static Value MakeFunction(Function function);

  template <typename T>
  [[nodiscard]] const T* As() const {
    return std::get_if<T>(&data_);
  }
  [[nodiscard]] bool is_undefined() const { return As<Undefined>() != nullptr; }
  [[nodiscard]] bool is_none() const { return As<None>() != nullptr; }
  [[nodiscard]] const MarkedText* text() const;
  [[nodiscard]] const Sequence* sequence() const { return As<Sequence>(); }
  [[nodiscard]] const Dict* dict() const;
  [[nodiscard]] Namespace* names() const;
  [[nodiscard]] const Function* function() const;
  // Integers and booleans, as Python counts them.
  [[nodiscard]] std::optional<int64_t> integer() const;
  [[nodiscard]] std::optional<double> number() const;

  [[nodiscard]] bool Truth() const;
  // The Python type's name, for messages.
  [[nodiscard]] const char* TypeName() const;
  // str() and repr() of Python.
  [[nodiscard]] MarkedText Str() const;
  [[nodiscard]] MarkedText Repr() const;
  // len(); nullopt for values without one.
  [[nodiscard]] std::optional<size_t> Length() const;
  // The items that a loop sees: of a dict its keys, of a text its characters; nullopt when the
  // value cannot be iterated.
  [[nodiscard]] std::optional<List> Items() const;
  [[nodiscard]] bool Equals(const Value& other) const;
  // Python's ordering; nullopt when the types have none.
  [[nodiscard]] std::optional<int> Compare(const Value& other) const;

 private:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const MarkedText>,
                   Sequence, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                   std::shared_ptr<const Function>>;
  explicit Value(Data data) : data_(std::move(data)) {}

  Data data_;
};

// Arguments of a call.
struct Call {
  List args;
  std::vector<std::pair<std::string, Value>> named;

  // Argument `index`, or the one called `name`; nullptr when it is not given.
  [[nodiscard]] const Value* Find(size_t index, absl::string_view name) const;
};

// Python's repr of a float ("1.0", "1e+16", "nan").
[[nodiscard]] std::string FloatText(double value);

}  // namespace tessera::server::jinja
