// The language: what Python's jinja2 writes is compared in tests/golden; here are marks, limits and
// errors, and what the golden tests cannot see.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/text/jinja/interpreter.h"
#include "server/text/jinja/json.h"
#include "server/text/jinja/parser.h"
#include "server/text/jinja/variables.h"

namespace tessera::server::jinja {
namespace {

constexpr char kData[] = R"({"text": "a|b", "list": [1, 2, 3], "dict": {"k": "v"}})";

StatusOr<MarkedText> Rendered(absl::string_view source, const Limits& limits = {}) {
  TESSERA_ASSIGN_OR_RETURN(const Body body, Parse(source));
  TESSERA_ASSIGN_OR_RETURN(const Value data, FromJson(kData, TextOrigin::kData, "data"));
  Interpreter interpreter(limits);
  for (const auto& [name, value] : data.dict()->items) {
    interpreter.Define(name.text()->bytes(), value);
  }
  return interpreter.Run(body);
}

std::string Text(absl::string_view source) {
  const StatusOr<MarkedText> result = Rendered(source);
  return result.ok() ? result->bytes() : std::string(result.status().message());
}

// The result with what is data in angle brackets.
std::string Marked(absl::string_view source) {
  const StatusOr<MarkedText> result = Rendered(source);
  if (!result.ok()) return std::string(result.status().message());
  std::string marked;
  for (const TextSegment& segment : result->Segments()) {
    marked +=
        segment.origin == TextOrigin::kData ? absl::StrCat("<", segment.text, ">") : segment.text;
  }
  return marked;
}

TEST(Jinja, EachByteKeepsItsMark) {
  EXPECT_EQ(Marked("{{ text }}|{{ 'x' + text + 'y' }}"), "<a|b>|x<a|b>y");
  EXPECT_EQ(Marked("{{ text | upper }}{{ text.replace('|', '::') }}"), "<A|Ba>::<b>");
  EXPECT_EQ(Marked("{{ 'x|y'.replace('|', text) }}"), "x<a|b>y");
  EXPECT_EQ(Marked("{{ text.split('|') | join(' and ') }}"), "<a> and <b>");
  EXPECT_EQ(Marked("{{ ('.' ~ text ~ '.')[1:-1] }}{{ text[0] }}"), "<a|ba>");
  EXPECT_EQ(Marked("{{ text * 2 }}{{ '-' * 2 }}"), "<a|ba|b>--");
  EXPECT_EQ(Marked("{{ '%s!' % text }}{{ '[{}]'.format(text) }}"), "<a|b>![<a|b>]");
  EXPECT_EQ(Marked("{{ text | center(7) }}|{{ text | indent(2, true) }}"), "  <a|b>  |  <a|b>");
  EXPECT_EQ(Marked("{{ [text, 'x'] }}"), "['<a|b>', 'x']");
  EXPECT_EQ(Marked("{% for c in text %}{{ c }},{% endfor %}"), "<a>,<|>,<b>,");
  EXPECT_EQ(Marked("{% set s %}({{ text }}){% endset %}{{ s | title }}"), "(<A|b>)");
  EXPECT_EQ(Marked("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(text) }}"), "[<a|b>]");
  EXPECT_EQ(Marked("{% for k, v in dict.items() %}{{ k }}={{ v }}{% endfor %}"), "<k>=<v>");
  EXPECT_EQ(Marked("{{ text | escape }}{{ '<' | e }}"), "<a|b>&lt;");
}

TEST(Jinja, WhatJsonWritesIsData) {
  EXPECT_EQ(Marked("x{{ dict | tojson }}y"), "x<{\"k\": \"v\"}>y");
  EXPECT_EQ(Marked("{{ 'template' | tojson }}"), "<\"template\">");
}

TEST(Jinja, ErrorsNameTheirLine) {
  const auto error = [](absl::string_view source) {
    const StatusOr<MarkedText> result = Rendered(source);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << source;
    return std::string(result.status().message());
  };
  EXPECT_EQ(error("a\nb {{ 1 + }}"),
            "chat template failed; where: line 2, column 10; why: an expression ends too early");
  EXPECT_EQ(error("\n\n{{ nobody.name }}"),
            "chat template failed; where: line 3; why: 'nobody' is undefined");
  EXPECT_EQ(error("\n{{ 'x' |\n nope }}"),
            "chat template failed; where: line 3; why: no filter named 'nope'");
  EXPECT_EQ(error("{% for x in 5 %}\n{% endfor %}"),
            "chat template failed; where: line 1; why: 'int' cannot be iterated");
  EXPECT_EQ(error("{% set x = 1 %}\n{% set x.y = 2 %}"),
            "chat template failed; where: line 2; why: cannot assign x.y: only a namespace has "
            "fields to assign");
  EXPECT_EQ(error("\n{{ raise_exception('only ' ~ list | length) }}"),
            "refused by the chat template; where: line 2; why: only 3");
  EXPECT_EQ(
      error("{% include 'x' %}"),
      "chat template failed; where: line 1, column 4; why: the tag 'include' is not supported");
  // A macro's error is where it happens, not where it is called.
  EXPECT_TRUE(absl::StrContains(error("{% macro m() %}\n{{ 1 / 0 }}\n{% endmacro %}\n\n{{ m() }}"),
                                "line 2"));
}

TEST(Jinja, NothingBehindUnderscoresIsRead) {
  EXPECT_TRUE(absl::StrContains(Text("{{ text.__class__ }}"), "underscore"));
  EXPECT_TRUE(absl::StrContains(Text("{{ text['__class__'] }}"), "underscore"));
  EXPECT_TRUE(
      absl::StrContains(Text("{{ [text] | map(attribute='__class__') | list }}"), "underscore"));
  EXPECT_TRUE(absl::StrContains(Text("{{ '{0.__class__}'.format(text) }}"), "underscore"));
  EXPECT_EQ(Text("{{ {'_k': 1}['_k'] }}"), "1");
}

TEST(Jinja, ValuesCannotBeChanged) {
  for (const char* change : {"list.append(4)", "list.pop()", "dict.update({'a': 1})",
                             "dict.pop('k')", "list.sort()", "dict.clear()"}) {
    EXPECT_TRUE(absl::StrContains(Text(absl::StrCat("{{ ", change, " }}")), "cannot be changed"))
        << change;
  }
}

TEST(Jinja, WorkIsBounded) {
  const char* loops[] = {
      "{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}",
      "{% macro m(n) %}{% for i in range(9) %}{{ m(n + 1) if n < 9 }}{% endfor %}{% endmacro %}"
      "{{ m(0) }}",
      "{% set l = range(3000) | list %}{% for a in l %}{{ 'x' if a == l }}{% if -1 in l %}{% endif "
      "%}{% endfor %}",
      "{% set l = range(90000) | list %}{{ l | unique | list | length }}",
      "{% set l = range(90000) | list %}{{ (l + l + l + l + l + l) | sort | length }}",
  };
  for (const char* source : loops) {
    const StatusOr<MarkedText> result = Rendered(source);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted) << source;
  }
}

TEST(Jinja, StepsAreCounted) {
  Limits limits;
  limits.steps = 10'000;
  const auto loop = [&](int count) {
    return Rendered(absl::StrCat("{% for i in range(", count, ") %}{{ i }}{% endfor %}"), limits);
  };
  EXPECT_TRUE(loop(1000).ok());
  const StatusOr<MarkedText> refused = loop(10'000);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.status().message(),
            "chat template failed; where: line 1; why: it needs more than 10000 steps");
}

TEST(Jinja, TextsAreBoundedBeforeTheyAreMade) {
  const char* huge[] = {
      "{{ 'x' * 999999999999 }}",
      "{% set s = 'x' * 60000 %}{{ s ~ s }}",
      "{% set s = 'x' * 60000 %}{{ s + s }}",
      "{% set s = 'x' * 60000 %}{{ [s, s] | join }}",
      "{% set s = 'x' * 60000 %}{{ '-'.join([s, s]) }}",
      "{% set s = 'x' * 30000 %}{{ s.replace('x', 'xyz') }}",
      "{{ ('x' * 300).replace('', 'y' * 60000) }}",
      "{{ 'x' | center(999999999999) }}",
      "{{ 'x'.ljust(99999999) }}",
      "{{ '%99999999d' % 1 }}",
      "{{ '{:>99999999}'.format(1) }}",
      "{{ 'a\nb' | indent(99999999) }}",
      "{% set s = 'x' * 60000 %}{{ [s, s] }}",
      "{% set s = 'x' * 60000 %}{{ [s, s] | tojson }}",
      "{% for i in range(9) %}{{ 'x' * 60000 }}{% endfor %}",
      "{% set s %}{% for i in range(9) %}{{ 'x' * 60000 }}{% endfor %}{% endset %}",
      "{% macro m() %}{{ 'x' * 60000 }}{{ 'x' * 60000 }}{% endmacro %}{% set s = m() %}",
  };
  for (const char* source : huge) {
    const StatusOr<MarkedText> result = Rendered(source);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted) << source;
    EXPECT_TRUE(absl::StrContains(result.status().message(), "65536 bytes")) << result.status();
  }
}

TEST(Jinja, ListsAndAllTextsTogetherAreBounded) {
  const char* large[] = {
      "{{ [1] * 999999999999 }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = ns.l + ns.l %}{% "
      "endfor "
      "%}",
      "{% for i in range(9999) %}{% set s = 'x' * 60000 %}{% endfor %}",
      "{{ range(10) | slice(999999999) | list }}",
      "{{ [1] | batch(999999999, 0) | list }}",
  };
  for (const char* source : large) {
    EXPECT_EQ(Rendered(source).status().code(), absl::StatusCode::kResourceExhausted) << source;
  }
}

TEST(Jinja, SharedPartsDoNotMultiplyTheWork) {
  // Sixty levels of a list that holds its predecessor twice: 2^60 leaves in a few kilobytes.
  const std::string nested =
      "{% set ns = namespace(a=[], b=[]) %}{% for i in range(60) %}"
      "{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}";
  for (const char* use : {"{{ ns.a }}", "{{ ns.a | tojson }}", "{{ ns.a == ns.b }}",
                          "{{ ns.a < ns.b }}", "{{ ns.a in [ns.b] }}", "{{ ns.a ~ '' }}"}) {
    EXPECT_EQ(Rendered(nested + use).status().code(), absl::StatusCode::kResourceExhausted) << use;
  }
}

TEST(Jinja, DepthIsBounded) {
  EXPECT_EQ(Rendered("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Rendered("{% for x in list recursive %}{{ loop(list) }}{% endfor %}").status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StrContains(
      Text("{% set ns = namespace(l=[]) %}{% for i in range(500) %}{% set ns.l = [ns.l] %}"
           "{% endfor %}"),
      "nested too deeply"));
  EXPECT_TRUE(
      absl::StrContains(Text("{{ " + std::string(500, '(') + "1" + std::string(500, ')') + " }}"),
                        "nested too deeply"));
  std::string blocks;
  for (int i = 0; i < 200; ++i) blocks += "{% if 1 %}";
  EXPECT_TRUE(absl::StrContains(Text(blocks), "nested too deeply"));
  std::string sum = "{{ 1";
  for (int i = 0; i < 100; ++i) sum += " + 1";
  EXPECT_EQ(Text(sum + " }}"), "101");
}

TEST(Jinja, CyclesAndLongChainsAreFreed) {
  // A leak or a deep recursion here is a finding of the sanitizers.
  EXPECT_EQ(Text("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}x"), "x");
  EXPECT_EQ(Text("{% set ns = namespace(p=none) %}{% for i in range(20000) %}"
                 "{% set n = namespace(p=ns.p) %}{% set ns.p = n %}{% endfor %}x"),
            "x");
  EXPECT_EQ(Text("{% set ns = namespace(l=[0]) %}{% for i in range(9000) %}"
                 "{% for x in ns.l %}{% set ns.l = [loop] %}{% endfor %}{% endfor %}x"),
            "x");
  EXPECT_EQ(
      Text("{% for i in range(3) %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}"),
      "012");
}

TEST(Jinja, IntegersStayWithin64Bits) {
  for (const char* source : {"{{ 9223372036854775807 + 1 }}", "{{ -9223372036854775807 - 2 }}",
                             "{{ 4611686018427387904 * 2 }}", "{{ 2 ** 63 }}",
                             "{{ (-9223372036854775807 - 1) // -1 }}", "{{ 1e300 | int }}"}) {
    EXPECT_TRUE(absl::StrContains(Text(source), "64 bits")) << source;
  }
  EXPECT_EQ(Text("{{ (-9223372036854775807 - 1) % -1 }}{{ 2 ** 62 }}"), "04611686018427387904");
}

TEST(Jinja, JsonIsReadInOrderAndTheLastOfEqualKeysCounts) {
  const StatusOr<Value> value = FromJson(R"({"b": 1, "a": 2, "b": 3})", TextOrigin::kData, "field");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(value->Repr().bytes(), "{'b': 3, 'a': 2}");
  for (const std::string& broken :
       {std::string("{"), std::string(""), std::string("[1,]"), std::string("{\"a\": 1} x"),
        std::string("18446744073709551615"), std::string("123456789012345678901234567890"),
        std::string("[\"\xFF\"]"), std::string(65, '[') + std::string(65, ']')}) {
    const StatusOr<Value> refused = FromJson(broken, TextOrigin::kData, "field");
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << broken;
    EXPECT_TRUE(absl::StrContains(refused.status().message(), "field"));
  }
  // Many keys are read in linear time.
  std::string many = "{\"k\": 0";
  for (int i = 0; i < 100'000; ++i) absl::StrAppend(&many, ",\"", i, "\":1");
  const StatusOr<Value> large = FromJson(many + "}", TextOrigin::kData, "field");
  ASSERT_TRUE(large.ok());
  EXPECT_TRUE(large->dict()->Find("99999") != nullptr);
  EXPECT_TRUE(large->dict()->Find("nope") == nullptr);
}

std::set<std::string> Read(absl::string_view source) {
  const StatusOr<Body> body = Parse(source);
  EXPECT_TRUE(body.ok()) << body.status();
  return VariablesRead(*body);
}

TEST(Jinja, VariablesAreThoseReadBeforeTheyAreSet) {
  using Names = std::set<std::string>;
  EXPECT_EQ(Read("{{ a }}{% set b = c %}{{ b }}"), (Names{"a", "c"}));
  EXPECT_EQ(Read("{% set a = a | default(1) %}{{ a }}"), (Names{"a"}));
  EXPECT_EQ(Read("{% for x in xs %}{{ x }}{{ loop.index }}{% endfor %}{{ loop }}"),
            (Names{"xs", "loop"}));
  EXPECT_EQ(Read("{% if a %}{% set b = 1 %}{% endif %}{{ b }}"), (Names{"a", "b"}));
  EXPECT_EQ(Read("{% if a %}{% set b = 1 %}{% else %}{% set b = 2 %}{% endif %}{{ b }}"),
            (Names{"a"}));
  EXPECT_EQ(Read("{% for x in range(3) %}{% set y = 1 %}{% endfor %}{{ y }}"), (Names{"y"}));
  EXPECT_EQ(
      Read("{% macro m(p, q=r) %}{{ p }}{{ q }}{{ s }}{{ caller() }}{% endmacro %}{{ m(1) }}"),
      (Names{"r", "s"}));
  EXPECT_EQ(Read("{% set ns = namespace(v=1) %}{% set ns.v = w %}{{ ns.v }}{{ range(1) }}"),
            (Names{"w"}));
  EXPECT_EQ(Read("{% with a = b %}{{ a }}{% endwith %}{{ x.y[z] | f(k=k) if t is eq(u) }}"),
            (Names{"b", "x", "z", "k", "t", "u"}));
}

}  // namespace
}  // namespace tessera::server::jinja
