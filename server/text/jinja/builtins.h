// The tables of filters, tests, methods and global functions.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "absl/strings/string_view.h"
#include "server/text/jinja/interpreter.h"

namespace tessera::server::jinja {

inline constexpr size_t kMaxParameters = 6;

// Arguments in the order of a builtin's parameters; null where not given.
struct BoundArgs {
  std::array<const Value*, kMaxParameters> slots{};
  const Call* call = nullptr;  // as written

  const Value* operator[](size_t index) const { return slots[index]; }
  [[nodiscard]] bool Truth(size_t index, bool fallback) const {
    return slots[index] == nullptr ? fallback : slots[index]->Truth();
  }
};

// `self` is what a filter, test or method works on; undefined for a global function.
struct Builtin {
  absl::string_view name;
  StatusOr<Value> (*function)(Interpreter& interpreter, const Value& self, const BoundArgs& args);
  // Names separated by spaces, those behind "?" may be left out; "*" takes anything unchecked.
  absl::string_view parameters = "";
};

// nullptr when there is none of that name.
[[nodiscard]] const Builtin* FindFilter(absl::string_view name);
[[nodiscard]] const Builtin* FindTest(absl::string_view name);
[[nodiscard]] const Builtin* FindMethod(const Value& self, absl::string_view name);
[[nodiscard]] const Builtin* FindGlobal(absl::string_view name);

// Binds the arguments and calls. INVALID_ARGUMENT when they do not fit.
[[nodiscard]] StatusOr<Value> Invoke(Interpreter& interpreter, const Builtin& builtin,
                                     const Value& self, const Call& call);

// The tables' parts.
[[nodiscard]] std::span<const Builtin> TextFilters();
[[nodiscard]] std::span<const Builtin> NumberFilters();
[[nodiscard]] std::span<const Builtin> ListFilters();
[[nodiscard]] std::span<const Builtin> OrderFilters();
[[nodiscard]] std::span<const Builtin> TextMethods();

// What a parameter holds, or `fallback` when it is not given. INVALID_ARGUMENT naming `what` when
// it is of another type.
[[nodiscard]] StatusOr<int64_t> IntegerArg(const Value* value, int64_t fallback,
                                           absl::string_view what);
[[nodiscard]] StatusOr<const MarkedText*> TextArg(const Value* value, absl::string_view what);

}  // namespace tessera::server::jinja
