// The values of a template: what Python's would be, immutable but for namespaces and loops.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/jinja/marked_text.h"

namespace tessera::server::jinja {

class Value;
struct Call;
struct Node;
struct Scope;
class Interpreter;

using List = std::vector<Value>;

// How deep values may be nested: whoever makes a list, dict or function checks depth() against it,
// so that printing, comparing and freeing need a bounded stack.
inline constexpr uint32_t kMaxValueDepth = 100;

// What a value costs to walk. Values share parts, so that the work can grow exponentially with the
// memory; both saturate.
struct Extent {
  uint32_t depth = 1;
  uint64_t weight = 1;  // scalars, and 64 bytes of text each
};

struct Undefined {
  std::string hint;  // "'x' is undefined"
};
struct None {};
enum class SequenceKind {
  kList,
  kTuple,
  kGroup,      // of groupby: a pair with the names "grouper" and "list"
  kView,       // of a dict's methods
  kGenerator,  // of map, select and the like: always true, without length and index
};
struct Sequence {
  std::shared_ptr<const List> items;
  SequenceKind kind = SequenceKind::kList;
  Extent extent;
  [[nodiscard]] bool tuple() const {
    return kind == SequenceKind::kTuple || kind == SequenceKind::kGroup;
  }
};
// In insertion order. Keys are strings or numbers.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  Extent extent;  // this and the index are set by Value::MakeDict
  absl::flat_hash_map<absl::string_view, size_t> index;  // of the texts among many keys
  [[nodiscard]] const Value* Find(const Value& key) const;
  [[nodiscard]] const Value* Find(absl::string_view key) const;
  // Replaces the value of an equal key, or appends.
  void Set(Value key, Value value);
};
// namespace(), which a template may change. It can come to hold itself: the interpreter owns each
// one and empties it at the end.
struct Namespace {
  std::vector<std::pair<std::string, Value>> fields;
  [[nodiscard]] const Value* Find(absl::string_view name) const;
  void Set(absl::string_view name, Value value);
};
// `loop`. Owned like a namespace.
struct Loop {
  std::shared_ptr<const List> items;
  size_t index = 0;
  size_t depth = 1;
  const Node* recursive = nullptr;  // the loop's node, when loop(…) may call it
  Scope* outer = nullptr;           // what surrounds that node; valid while `recursive` is set
  std::shared_ptr<const List> last_changed;
};
struct Function {
  std::string name;
  std::function<StatusOr<Value>(Interpreter&, const Call&)> call;
  uint32_t depth = 1;  // one more than that of the values it holds
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
  static Value MakeSequence(SequenceKind kind, List items);
  static Value MakeList(List items) { return MakeSequence(SequenceKind::kList, std::move(items)); }
  static Value MakeDict(Dict dict);
  static Value MakeNamespace(std::shared_ptr<Namespace> names) { return Value(std::move(names)); }
  static Value MakeLoop(std::shared_ptr<Loop> loop) { return Value(std::move(loop)); }
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
  [[nodiscard]] Loop* loop() const;
  [[nodiscard]] const Function* function() const;
  // Integers and booleans, as Python counts them.
  [[nodiscard]] std::optional<int64_t> integer() const;
  [[nodiscard]] std::optional<double> number() const;

  [[nodiscard]] Extent extent() const;
  [[nodiscard]] bool Truth() const;
  // The Python type's name, for messages.
  [[nodiscard]] const char* TypeName() const;
  // str() and repr() of Python. Writing stops soon after `max_bytes`: a longer result is cut.
  [[nodiscard]] MarkedText Str(size_t max_bytes = kUnbounded) const;
  [[nodiscard]] MarkedText Repr(size_t max_bytes = kUnbounded) const;
  // len(); nullopt for values without one.
  [[nodiscard]] std::optional<size_t> Length() const;
  // The items that a loop sees: of a dict its keys, of a text its characters; null when the value
  // cannot be iterated.
  [[nodiscard]] std::shared_ptr<const List> Items() const;
  // The work is bounded by the smaller weight of the two.
  [[nodiscard]] bool Equals(const Value& other) const;
  // Whether Python would take it as a dict's key.
  [[nodiscard]] bool IsHashable() const;
  // Python's ordering; nullopt when the types have none. Not a number is equal to everything.
  [[nodiscard]] std::optional<int> Compare(const Value& other) const;

  static constexpr size_t kUnbounded = SIZE_MAX;

 private:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const MarkedText>,
                   Sequence, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                   std::shared_ptr<Loop>, std::shared_ptr<const Function>>;
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
