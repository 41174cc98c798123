#include "server/text/jinja/builtins.h"

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tessera::server::jinja {
namespace {

using Table = absl::flat_hash_map<absl::string_view, const Builtin*>;

Table MakeTable(std::initializer_list<std::span<const Builtin>> parts) {
  Table table;
  for (const std::span<const Builtin> part : parts) {
    for (const Builtin& builtin : part) table.emplace(builtin.name, &builtin);
  }
  return table;
}

}  // namespace

const Builtin* FindFilter(absl::string_view name) {
  static const Table& table =
      *new Table(MakeTable({TextFilters(), NumberFilters(), ListFilters(), OrderFilters()}));
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

StatusOr<Value> Invoke(Interpreter& interpreter, const Builtin& builtin, const Value& self,
                       const Call& call) {
  BoundArgs bound;
  bound.call = &call;
  if (builtin.parameters == "*") return builtin.function(interpreter, self, bound);
  size_t count = 0;
  size_t required = SIZE_MAX;
  size_t named = 0;
  for (const absl::string_view name : absl::StrSplit(builtin.parameters, ' ', absl::SkipEmpty())) {
    if (name == "?") {
      required = count;
      continue;
    }
    for (const auto& [key, value] : call.named) {
      if (key != name) continue;
      if (count < call.args.size()) {
        return Interpreter::Fail(absl::StrCat(builtin.name, " got two values for '", name, "'"));
      }
      bound.slots[count] = &value;
      ++named;
    }
    if (count < call.args.size()) bound.slots[count] = &call.args[count];
    if (bound.slots[count] == nullptr && required == SIZE_MAX) {
      return Interpreter::Fail(absl::StrCat(builtin.name, " needs the argument '", name, "'"));
    }
    ++count;
  }
  if (call.args.size() > count) {
    return Interpreter::Fail(absl::StrCat(builtin.name, " takes at most ", count,
                                          " argument(s), not ", call.args.size()));
  }
  if (named < call.named.size()) {
    return Interpreter::Fail(
        absl::StrCat(builtin.name, " has no argument '", call.named.back().first,
                     "' or it is not known; it takes ",
                     builtin.parameters.empty() ? "none" : builtin.parameters));
  }
  return builtin.function(interpreter, self, bound);
}

StatusOr<int64_t> IntegerArg(const Value* value, int64_t fallback, absl::string_view what) {
  if (value == nullptr) return fallback;
  if (const std::optional<int64_t> integer = value->integer()) return *integer;
  return Interpreter::Fail(absl::StrCat(what, " must be an integer, not ", value->TypeName()));
}

StatusOr<const MarkedText*> TextArg(const Value* value, absl::string_view what) {
  if (value != nullptr && value->text() != nullptr) return value->text();
  return Interpreter::Fail(absl::StrCat(what, " must be a string, not ",
                                        value == nullptr ? "nothing" : value->TypeName()));
}

}  // namespace tessera::server::jinja
