// Filters that compare items, and what they share with those that look attributes up.
#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/text/jinja/attributes.h"
#include "server/text/jinja/builtins.h"
#include "server/text/jinja/text_ops.h"

namespace tessera::server::jinja {
namespace {

enum class CaseRule { kSensitive, kIgnored };

CaseRule RuleOf(const BoundArgs& args, size_t index) {
  return args.Truth(index, false) ? CaseRule::kSensitive : CaseRule::kIgnored;
}

StatusOr<Value> Folded(Interpreter& interpreter, const Value& value, CaseRule rule) {
  if (rule == CaseRule::kSensitive || value.text() == nullptr) return value;
  return interpreter.MakeText(Lower(*value.text()));
}

struct Keyed {
  Value key;
  Value item;
};

// What each item is compared by: the attribute (null or none: the item), or the attributes of a
// list with commas.
StatusOr<std::vector<Keyed>> KeyItems(Interpreter& interpreter, const List& items,
                                      const Value* attribute, const Value* fallback,
                                      CaseRule rule) {
  const bool whole = attribute == nullptr || attribute->is_none();
  std::vector<std::string> paths;
  if (!whole && attribute->text() != nullptr) {
    paths = absl::StrSplit(attribute->text()->bytes(), ',');
  }
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
    TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(2));
    Value key = item;
    if (paths.size() > 1) {
      List keys;
      for (const std::string& path : paths) {
        TESSERA_ASSIGN_OR_RETURN(Value part,
                                 AttributeOf(interpreter, item, Value::Text(path), fallback));
        TESSERA_ASSIGN_OR_RETURN(part, Folded(interpreter, part, rule));
        keys.push_back(std::move(part));
      }
      TESSERA_ASSIGN_OR_RETURN(key, interpreter.MakeList(std::move(keys)));
    } else if (!whole) {
      TESSERA_ASSIGN_OR_RETURN(key, AttributeOf(interpreter, item, *attribute, fallback));
    }
    TESSERA_ASSIGN_OR_RETURN(key, Folded(interpreter, key, rule));
    keyed.push_back({std::move(key), item});
  }
  return keyed;
}

// A stable merge sort, because a comparison can fail and std::sort needs an order that holds.
Status SortKeyed(Interpreter& interpreter, std::vector<Keyed>* items, bool reverse) {
  std::vector<Keyed> merged(items->size());
  for (size_t width = 1; width < items->size(); width *= 2) {
    for (size_t begin = 0; begin < items->size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, items->size());
      const size_t end = std::min(begin + 2 * width, items->size());
      size_t left = begin;
      size_t right = middle;
      for (size_t out = begin; out < end; ++out) {
        bool take_right = left == middle;
        if (left < middle && right < end) {
          const Value& a = (*items)[left].key;
          const Value& b = (*items)[right].key;
          TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
          TESSERA_ASSIGN_OR_RETURN(take_right, reverse ? interpreter.Ordered("<", a, b)
                                                       : interpreter.Ordered("<", b, a));
        }
        merged[out] = std::move((*items)[take_right ? right++ : left++]);
      }
    }
    items->swap(merged);
  }
  return absl::OkStatus();
}

List ItemsOf(std::vector<Keyed> keyed) {
  List items;
  items.reserve(keyed.size());
  for (Keyed& one : keyed) items.push_back(std::move(one.item));
  return items;
}

StatusOr<Value> Sort(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  TESSERA_ASSIGN_OR_RETURN(std::vector<Keyed> keyed,
                           KeyItems(interpreter, *items, args[2], nullptr, RuleOf(args, 1)));
  TESSERA_RETURN_IF_ERROR(SortKeyed(interpreter, &keyed, args.Truth(0, false)));
  return interpreter.MakeList(ItemsOf(std::move(keyed)));
}

StatusOr<Value> DictSort(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  if (self.dict() == nullptr) {
    return Interpreter::Fail(absl::StrCat("dictsort needs a dict, not ", self.TypeName()));
  }
  int64_t part = 0;
  if (args[1] != nullptr) {
    const std::string by = args[1]->text() == nullptr ? "" : args[1]->text()->bytes();
    if (by != "key" && by != "value") return Interpreter::Fail("dictsort is by key or by value");
    part = by == "value" ? 1 : 0;
  }
  TESSERA_ASSIGN_OR_RETURN(const Value pairs,
                           DictItems(interpreter, *self.dict(), SequenceKind::kList));
  const Value path = Value::Int(part);
  TESSERA_ASSIGN_OR_RETURN(std::vector<Keyed> keyed, KeyItems(interpreter, *pairs.sequence()->items,
                                                              &path, nullptr, RuleOf(args, 0)));
  TESSERA_RETURN_IF_ERROR(SortKeyed(interpreter, &keyed, args.Truth(2, false)));
  return interpreter.MakeList(ItemsOf(std::move(keyed)));
}

StatusOr<Value> Unique(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  TESSERA_ASSIGN_OR_RETURN(std::vector<Keyed> keyed,
                           KeyItems(interpreter, *items, args[1], nullptr, RuleOf(args, 0)));
  List kept;
  List seen;
  for (Keyed& one : keyed) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(seen.size() / 16));
    TESSERA_RETURN_IF_ERROR(interpreter.CheckHashable(one.key));
    bool known = false;
    for (const Value& before : seen) {
      TESSERA_ASSIGN_OR_RETURN(known, interpreter.Equal(before, one.key));
      if (known) break;
    }
    if (known) continue;
    seen.push_back(std::move(one.key));
    kept.push_back(std::move(one.item));
  }
  return interpreter.MakeSequence(SequenceKind::kGenerator, std::move(kept));
}

enum class Extreme { kLeast, kGreatest };

template <Extreme kWhich>
StatusOr<Value> Extremum(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<Keyed> keyed,
                           KeyItems(interpreter, *items, args[1], nullptr, RuleOf(args, 0)));
  if (keyed.empty()) return Value::MakeUndefined("no extreme item, the sequence is empty");
  const Keyed* best = &keyed[0];
  for (const Keyed& one : keyed) {
    if (&one == best) continue;
    TESSERA_ASSIGN_OR_RETURN(
        const bool better,
        interpreter.Ordered(kWhich == Extreme::kLeast ? "<" : ">", one.key, best->key));
    if (better) best = &one;
  }
  return best->item;
}

StatusOr<Value> GroupBy(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  TESSERA_ASSIGN_OR_RETURN(std::vector<Keyed> keyed,
                           KeyItems(interpreter, *items, args[0], args[1], RuleOf(args, 2)));
  TESSERA_RETURN_IF_ERROR(SortKeyed(interpreter, &keyed, false));
  List groups;
  for (size_t begin = 0; begin < keyed.size();) {
    size_t end = begin + 1;
    for (; end < keyed.size(); ++end) {
      TESSERA_ASSIGN_OR_RETURN(const bool same,
                               interpreter.Equal(keyed[begin].key, keyed[end].key));
      if (!same) break;
    }
    // The key as its first item has it, before its case was folded.
    TESSERA_ASSIGN_OR_RETURN(Value key,
                             AttributeOf(interpreter, keyed[begin].item, *args[0], args[1]));
    List members;
    for (size_t i = begin; i < end; ++i) members.push_back(keyed[i].item);
    TESSERA_ASSIGN_OR_RETURN(Value list, interpreter.MakeList(std::move(members)));
    TESSERA_ASSIGN_OR_RETURN(
        Value group,
        interpreter.MakeSequence(SequenceKind::kGroup, {std::move(key), std::move(list)}));
    groups.push_back(std::move(group));
    begin = end;
  }
  return interpreter.MakeList(std::move(groups));
}

constexpr Builtin kOrderFilters[] = {
    {"sort", Sort, "? reverse case_sensitive attribute"},
    {"dictsort", DictSort, "? case_sensitive by reverse"},
    {"unique", Unique, "? case_sensitive attribute"},
    {"min", Extremum<Extreme::kLeast>, "? case_sensitive attribute"},
    {"max", Extremum<Extreme::kGreatest>, "? case_sensitive attribute"},
    {"groupby", GroupBy, "attribute ? default case_sensitive"},
};

}  // namespace

std::span<const Builtin> OrderFilters() { return kOrderFilters; }

StatusOr<Value> AttributeOf(Interpreter& interpreter, const Value& item, const Value& path,
                            const Value* fallback) {
  const MarkedText* names = path.text();
  Value value = item;
  if (names == nullptr) {
    TESSERA_ASSIGN_OR_RETURN(value, interpreter.Item(value, path));
    return value.is_undefined() && fallback != nullptr ? *fallback : value;
  }
  for (const absl::string_view name : absl::StrSplit(names->bytes(), '.')) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
    int64_t index = 0;
    const bool number =
        !name.empty() && name[0] != '-' && name[0] != '+' && absl::SimpleAtoi(name, &index);
    TESSERA_ASSIGN_OR_RETURN(
        value,
        interpreter.Item(value, number ? Value::Int(index)
                                       : Value::Text(std::string(name), TextOrigin::kTemplate)));
    if (value.is_undefined() && fallback != nullptr) value = *fallback;
  }
  return value;
}

StatusOr<std::shared_ptr<const List>> AttributeOfEach(Interpreter& interpreter, const List& items,
                                                      const Value& path, const Value* fallback) {
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(items.size()));
  List found;
  found.reserve(items.size());
  for (const Value& item : items) {
    TESSERA_ASSIGN_OR_RETURN(Value value, AttributeOf(interpreter, item, path, fallback));
    found.push_back(std::move(value));
  }
  return std::make_shared<const List>(std::move(found));
}

StatusOr<Value> DictItems(Interpreter& interpreter, const Dict& dict, SequenceKind kind) {
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(3 * dict.items.size()));
  List pairs;
  pairs.reserve(dict.items.size());
  for (const auto& [key, value] : dict.items) {
    TESSERA_ASSIGN_OR_RETURN(Value pair,
                             interpreter.MakeSequence(SequenceKind::kTuple, {key, value}));
    pairs.push_back(std::move(pair));
  }
  return interpreter.MakeSequence(kind, std::move(pairs));
}

}  // namespace tessera::server::jinja
