#include "server/text/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/text/jinja/format.h"
#include "server/text/jinja/text_builtins.h"

namespace tessera::server::jinja {
namespace {

Status Unsupported(absl::string_view op, const Value& a, const Value& b) {
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) return Interpreter::Fail(value->As<Undefined>()->hint);
  }
  return Interpreter::Fail(absl::StrCat("unsupported operand types for ", op, ": '", a.TypeName(),
                                        "' and '", b.TypeName(), "'"));
}

StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return Interpreter::Fail("0 cannot be raised to a negative power");
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  for (;;) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) break;
    exponent >>= 1;
    if (exponent == 0) return Value::Int(result);
    if (__builtin_mul_overflow(base, base, &base)) break;
  }
  return Interpreter::Fail("an integer does not fit 64 bits");
}

StatusOr<Value> IntegerOp(absl::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    return IntegerPower(a, b);
  } else if (b == 0) {
    return Interpreter::Fail("division by zero");
  } else if (op == "/") {
    return Value::Float(static_cast<double>(a) / static_cast<double>(b));
  } else if (b == -1) {
    // The one quotient that can leave 64 bits, and a remainder that would trap.
    overflow = op == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
  } else {
    const int64_t remainder = a % b;
    const bool floored = remainder != 0 && (remainder < 0) != (b < 0);
    result = op == "//" ? a / b - (floored ? 1 : 0) : remainder + (floored ? b : 0);
  }
  if (overflow) return Interpreter::Fail("an integer does not fit 64 bits");
  return Value::Int(result);
}

StatusOr<Value> FloatOp(absl::string_view op, double a, double b) {
  if (op == "+") return Value::Float(a + b);
  if (op == "-") return Value::Float(a - b);
  if (op == "*") return Value::Float(a * b);
  if (op == "**") {
    const double power = std::pow(a, b);
    if (!std::isfinite(power) && std::isfinite(a) && std::isfinite(b)) {
      return Interpreter::Fail("a power is no finite number");
    }
    if (std::isnan(power) && !std::isnan(a) && !std::isnan(b)) {
      return Interpreter::Fail("a power is no real number");
    }
    return Value::Float(power);
  }
  if (b == 0) return Interpreter::Fail("division by zero");
  if (op == "/") return Value::Float(a / b);
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0) {
    if ((b < 0) != (remainder < 0)) {
      remainder += b;
      quotient -= 1;
    }
  } else {
    remainder = std::copysign(0.0, b);
  }
  if (op == "%") return Value::Float(remainder);
  if (quotient == 0) return Value::Float(std::copysign(0.0, a / b));
  const double floor = std::floor(quotient);
  return Value::Float(quotient - floor > 0.5 ? floor + 1 : floor);
}

StatusOr<Value> Repeat(Interpreter& interpreter, const Value& value, int64_t times) {
  const uint64_t count = times < 0 ? 0 : static_cast<uint64_t>(times);
  const size_t length =
      value.text() != nullptr ? value.text()->size() : value.sequence()->items->size();
  size_t total = 0;
  if (__builtin_mul_overflow(length, count, &total)) total = SIZE_MAX / 64;
  if (const MarkedText* text = value.text()) {
    TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(total));
    MarkedText repeated;
    for (uint64_t i = 0; length > 0 && i < count; ++i) repeated.Append(*text);
    return Value::Text(std::move(repeated));
  }
  total = std::min(total, SIZE_MAX / 64);
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(total));
  List items;
  items.reserve(total);
  for (uint64_t i = 0; length > 0 && i < count; ++i) {
    items.insert(items.end(), value.sequence()->items->begin(), value.sequence()->items->end());
  }
  return interpreter.MakeSequence(value.sequence()->kind, std::move(items));
}

bool IsRepeatable(const Value& value) {
  return value.text() != nullptr ||
         (value.sequence() != nullptr && value.sequence()->kind <= SequenceKind::kTuple);
}

enum class Html : uint8_t { kKeep, kForget };

StatusOr<Value> JoinTexts(Interpreter& interpreter, const MarkedText& a, const MarkedText& b,
                          Html html = Html::kKeep) {
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(a.size() + b.size()));
  MarkedText text;
  text.Append(a);
  text.Append(b);
  if (html == Html::kKeep && a.is_html() && b.is_html()) text.MarkHtml();
  return Value::Text(std::move(text));
}

// Python's `+`: beside HTML, other text becomes HTML.
StatusOr<Value> AddTexts(Interpreter& interpreter, const MarkedText& a, const MarkedText& b) {
  if (a.is_html() == b.is_html()) return JoinTexts(interpreter, a, b);
  TESSERA_ASSIGN_OR_RETURN(const MarkedText escaped, EscapeHtml(interpreter, a.is_html() ? b : a));
  return a.is_html() ? JoinTexts(interpreter, a, escaped) : JoinTexts(interpreter, escaped, b);
}

StatusOr<Value> JoinSequences(Interpreter& interpreter, const Sequence& a, const Sequence& b) {
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(a.items->size() + b.items->size()));
  List items = *a.items;
  items.insert(items.end(), b.items->begin(), b.items->end());
  return interpreter.MakeSequence(a.tuple() ? SequenceKind::kTuple : SequenceKind::kList,
                                  std::move(items));
}

bool CanJoin(const Sequence& a, const Sequence& b) {
  return a.kind <= SequenceKind::kGroup && b.kind <= SequenceKind::kGroup && a.tuple() == b.tuple();
}

}  // namespace

StatusOr<Value> Apply(Interpreter& interpreter, absl::string_view op, const Value& a,
                      const Value& b) {
  if (op == "~") {
    TESSERA_ASSIGN_OR_RETURN(const MarkedText left, interpreter.Str(a));
    TESSERA_ASSIGN_OR_RETURN(const MarkedText right, interpreter.Str(b));
    return JoinTexts(interpreter, left, right, Html::kForget);
  }
  if (a.text() != nullptr && op == "%") return FormatPercent(interpreter, *a.text(), b);
  if (a.number() && b.number()) {
    if (a.integer() && b.integer()) return IntegerOp(op, *a.integer(), *b.integer());
    return FloatOp(op, *a.number(), *b.number());
  }
  if (op == "+") {
    if (a.text() && b.text()) return AddTexts(interpreter, *a.text(), *b.text());
    if (a.sequence() && b.sequence() && CanJoin(*a.sequence(), *b.sequence())) {
      return JoinSequences(interpreter, *a.sequence(), *b.sequence());
    }
  }
  if (op == "*") {
    if (IsRepeatable(a) && b.integer()) return Repeat(interpreter, a, *b.integer());
    if (IsRepeatable(b) && a.integer()) return Repeat(interpreter, b, *a.integer());
  }
  return Unsupported(op, a, b);
}

StatusOr<Value> Slice(Interpreter& interpreter, const Value& object, const Value* begin,
                      const Value* end, const Value* step) {
  if (object.is_undefined()) return Interpreter::Fail(object.As<Undefined>()->hint);
  const MarkedText* text = object.text();
  const Sequence* sequence = object.sequence();
  if (text == nullptr && (sequence == nullptr || sequence->kind > SequenceKind::kGroup)) {
    return Interpreter::Fail(
        absl::StrCat("a value of type '", object.TypeName(), "' cannot be cut into slices"));
  }
  for (const Value* bound : {begin, end, step}) {
    if (bound != nullptr && !bound->integer()) {
      return Interpreter::Fail(
          absl::StrCat("a slice's bounds must be integers, not ", bound->TypeName()));
    }
  }
  const int64_t stride = step == nullptr ? 1 : *step->integer();
  if (stride == 0) return Interpreter::Fail("slice step cannot be zero");
  std::shared_ptr<const List> items;
  if (text != nullptr && stride == 1) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(text->size() / 128));
  } else {
    TESSERA_ASSIGN_OR_RETURN(items, interpreter.Items(object));
  }
  const auto count = static_cast<int64_t>(items != nullptr ? items->size() : text->Length());
  const auto clamp = [&](const Value* bound, int64_t fallback) {
    if (bound == nullptr) return fallback;
    const int64_t low = stride > 0 ? 0 : -1;
    const int64_t value = *bound->integer();
    return std::clamp(value < 0 ? std::max(value + count, low) : value, low,
                      stride > 0 ? count : count - 1);
  };
  const int64_t first = clamp(begin, stride > 0 ? 0 : count - 1);
  const int64_t last = clamp(end, stride > 0 ? count : -1);
  if (items == nullptr) {
    if (first >= last) return Value::Text("");
    const size_t from = text->ByteOf(first);
    return interpreter.MakeText(text->Substr(from, text->ByteOf(last) - from));
  }
  List taken;
  for (int64_t i = first; stride > 0 ? i < last : i > last;) {
    taken.push_back((*items)[i]);
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  if (text == nullptr) {
    return interpreter.MakeSequence(sequence->tuple() ? SequenceKind::kTuple : SequenceKind::kList,
                                    std::move(taken));
  }
  MarkedText joined;
  for (const Value& character : taken) joined.Append(*character.text());
  return interpreter.MakeText(std::move(joined));
}

}  // namespace tessera::server::jinja
