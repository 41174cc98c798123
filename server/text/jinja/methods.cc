// Methods of dicts, lists and loops, and the global functions.
#include <ctime>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/clock.h"
#include "server/text/jinja/attributes.h"
#include "server/text/jinja/builtins.h"

namespace tessera::server::jinja {
namespace {

// Python's sandbox bounds range() so.
constexpr int64_t kMaxRange = 100'000;

StatusOr<Value> ItemsMethod(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  return DictItems(interpreter, *self.dict(), SequenceKind::kView);
}

StatusOr<Value> Keys(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(const auto keys, interpreter.Items(self));
  return interpreter.MakeSequence(SequenceKind::kView, *keys);
}

StatusOr<Value> Values(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  List values;
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(self.dict()->items.size()));
  for (const auto& [key, value] : self.dict()->items) values.push_back(value);
  return interpreter.MakeSequence(SequenceKind::kView, std::move(values));
}

StatusOr<Value> Get(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_RETURN_IF_ERROR(interpreter.CheckHashable(*args[0]));
  TESSERA_RETURN_IF_ERROR(
      interpreter.Spend(args[0]->text() != nullptr ? 0 : self.dict()->items.size() / 4));
  if (const Value* value = self.dict()->Find(*args[0])) return *value;
  return args[1] == nullptr ? Value::MakeNone() : *args[1];
}

StatusOr<Value> Copy(Interpreter&, const Value& self, const BoundArgs&) { return self; }

StatusOr<Value> Changes(Interpreter&, const Value& self, const BoundArgs&) {
  return Interpreter::Fail(absl::StrCat("values cannot be changed, so this method of a ",
                                        self.TypeName(),
                                        " is refused; make a new value, or use namespace()"));
}

StatusOr<Value> IndexOf(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  const List& items = *self.sequence()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
    TESSERA_ASSIGN_OR_RETURN(const bool equal, interpreter.Equal(items[i], *args[0]));
    if (equal) return Value::Int(static_cast<int64_t>(i));
  }
  return Interpreter::Fail("the value is not in the list");
}

StatusOr<Value> CountOf(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  int64_t count = 0;
  for (const Value& item : *self.sequence()->items) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
    TESSERA_ASSIGN_OR_RETURN(const bool equal, interpreter.Equal(item, *args[0]));
    count += equal ? 1 : 0;
  }
  return Value::Int(count);
}

StatusOr<Value> Cycle(Interpreter&, const Value& self, const BoundArgs& args) {
  const List& values = args.call->args;
  if (values.empty()) return Interpreter::Fail("loop.cycle needs values");
  return values[self.loop()->index % values.size()];
}

StatusOr<Value> Changed(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  Loop& loop = *self.loop();
  TESSERA_ASSIGN_OR_RETURN(const Value now,
                           interpreter.MakeSequence(SequenceKind::kTuple, args.call->args));
  if (loop.last_changed != nullptr) {
    const Value before = Value::MakeSequence(SequenceKind::kTuple, *loop.last_changed);
    TESSERA_ASSIGN_OR_RETURN(const bool equal, interpreter.Equal(before, now));
    if (equal) return Value::Bool(false);
  }
  loop.last_changed = now.sequence()->items;
  return Value::Bool(true);
}

constexpr Builtin kDictMethods[] = {
    {"items", ItemsMethod},
    {"keys", Keys},
    {"values", Values},
    {"get", Get, "key ? default"},
    {"copy", Copy},
    {"update", Changes, "*"},
    {"pop", Changes, "*"},
    {"popitem", Changes, "*"},
    {"setdefault", Changes, "*"},
    {"clear", Changes, "*"},
};

constexpr Builtin kListMethods[] = {
    {"index", IndexOf, "value"}, {"count", CountOf, "value"}, {"copy", Copy},
    {"append", Changes, "*"},    {"extend", Changes, "*"},    {"insert", Changes, "*"},
    {"pop", Changes, "*"},       {"remove", Changes, "*"},    {"clear", Changes, "*"},
    {"sort", Changes, "*"},      {"reverse", Changes, "*"},
};

constexpr Builtin kTupleMethods[] = {{"index", IndexOf, "value"}, {"count", CountOf, "value"}};
constexpr Builtin kLoopMethods[] = {{"cycle", Cycle, "*"}, {"changed", Changed, "*"}};

StatusOr<Value> RaiseException(Interpreter& interpreter, const Value&, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText message, interpreter.Str(*args[0]));
  return interpreter.Refuse(message.bytes().substr(0, 4096));
}

// Local time, as templates that write a date expect it.
StatusOr<Value> StrftimeNow(Interpreter& interpreter, const Value&, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* format, TextArg(args[0], "strftime_now's format"));
  const auto now = static_cast<std::time_t>(SystemClock().UnixSeconds());
  std::tm local{};
  localtime_r(&now, &local);
  char text[1024];
  const size_t length =
      format->empty() ? 0 : std::strftime(text, sizeof(text), format->bytes().c_str(), &local);
  if (length == 0 && !format->empty()) {
    return Interpreter::Fail("strftime_now's result is empty or longer than 1,023 bytes");
  }
  return interpreter.MakeText(MarkedText(std::string(text, length), format->Origin()));
}

StatusOr<Value> Range(Interpreter& interpreter, const Value&, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const int64_t first, IntegerArg(args[0], 0, "range's bound"));
  TESSERA_ASSIGN_OR_RETURN(int64_t end, IntegerArg(args[1], 0, "range's bound"));
  TESSERA_ASSIGN_OR_RETURN(const int64_t step, IntegerArg(args[2], 1, "range's step"));
  const int64_t begin = args[1] == nullptr ? 0 : first;
  if (args[1] == nullptr) end = first;
  if (step == 0) return Interpreter::Fail("range's step cannot be zero");
  List numbers;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<int64_t>(numbers.size()) == kMaxRange) {
      return Interpreter::Fail(absl::StrCat("range is longer than ", kMaxRange));
    }
    numbers.push_back(Value::Int(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return interpreter.MakeList(std::move(numbers));
}

// dict() of Python: a mapping or pairs, and named values.
StatusOr<Dict> DictFrom(Interpreter& interpreter, const Call& call) {
  Dict dict;
  if (call.args.size() > 1) return Interpreter::Fail("a dict is made of at most one argument");
  if (!call.args.empty() && call.args[0].dict() != nullptr) {
    dict.items = call.args[0].dict()->items;
  } else if (!call.args.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(call.args[0]));
    for (const Value& item : *items) {
      TESSERA_RETURN_IF_ERROR(interpreter.Spend(1 + dict.items.size() / 8));
      TESSERA_ASSIGN_OR_RETURN(const auto pair, interpreter.Items(item));
      if (pair->size() != 2) return Interpreter::Fail("a dict is made of pairs");
      const Value& key = (*pair)[0];
      if (key.text() == nullptr && !key.number() && !key.is_none()) {
        return Interpreter::Fail(absl::StrCat("a ", key.TypeName(), " cannot be a dict's key"));
      }
      dict.Set(key, (*pair)[1]);
    }
  }
  for (const auto& [name, value] : call.named) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(dict.items.size() / 8));
    dict.Set(Value::Text(name), value);
  }
  return dict;
}

StatusOr<Value> DictFunction(Interpreter& interpreter, const Value&, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(Dict dict, DictFrom(interpreter, *args.call));
  return interpreter.MakeDict(std::move(dict));
}

StatusOr<Value> NamespaceFunction(Interpreter& interpreter, const Value&, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const Dict dict, DictFrom(interpreter, *args.call));
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(2 * dict.items.size()));
  auto names = std::make_shared<Namespace>();
  for (const auto& [key, value] : dict.items) {
    if (key.text() == nullptr) return Interpreter::Fail("a namespace's names are strings");
    names->fields.emplace_back(key.text()->bytes(), value);
  }
  return interpreter.NewNamespace(std::move(names));
}

// A function that gives nothing at first and the separator ever after.
StatusOr<Value> Joiner(Interpreter&, const Value&, const BoundArgs& args) {
  const Value separator = args[0] == nullptr ? Value::Text(", ") : *args[0];
  auto used = std::make_shared<bool>(false);
  return Value::MakeFunction({"joiner",
                              [separator, used](Interpreter&, const Call&) -> StatusOr<Value> {
                                return std::exchange(*used, true) ? separator : Value::Text("");
                              },
                              separator.extent().depth + 1});
}

constexpr Builtin kGlobals[] = {
    {"raise_exception", RaiseException, "message"}, {"strftime_now", StrftimeNow, "format"},
    {"range", Range, "start ? stop step"},          {"dict", DictFunction, "*"},
    {"namespace", NamespaceFunction, "*"},          {"joiner", Joiner, "? sep"},
};

const Builtin* FindIn(std::span<const Builtin> table, absl::string_view name) {
  for (const Builtin& builtin : table) {
    if (builtin.name == name) return &builtin;
  }
  return nullptr;
}

}  // namespace

const Builtin* FindMethod(const Value& self, absl::string_view name) {
  if (self.text() != nullptr) return FindIn(TextMethods(), name);
  if (self.dict() != nullptr) return FindIn(kDictMethods, name);
  if (self.loop() != nullptr) return FindIn(kLoopMethods, name);
  if (const Sequence* sequence = self.sequence()) {
    if (sequence->kind == SequenceKind::kList) return FindIn(kListMethods, name);
    if (sequence->tuple()) return FindIn(kTupleMethods, name);
  }
  return nullptr;
}

const Builtin* FindGlobal(absl::string_view name) { return FindIn(kGlobals, name); }

}  // namespace tessera::server::jinja
