"""Python's jinja2 as the reference of our template engine, and templates to try both on.

`render` sets jinja2 up as transformers does for chat templates: the immutable sandbox, trim_blocks, lstrip_blocks,
loop controls, `{% generation %}`, raise_exception, strftime_now, and a tojson that escapes nothing for HTML.
"""

import copy
import datetime
import functools
import json
import pathlib
import subprocess
import warnings

import jinja2
import jinja2.ext
import jinja2.sandbox

import daemon


class Refused(jinja2.TemplateError):
    """raise_exception was called."""


class _Generation(jinja2.ext.Extension):
    """The block that marks an assistant's turn; the text does not depend on it."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def _refuse(message):
    raise Refused(message)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment():
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = lambda text: datetime.datetime.now().strftime(text)
    return made


ENVIRONMENT = _environment()


@functools.lru_cache(maxsize=4)
def _compiled(template):
    return ENVIRONMENT.from_string(template)


def render(request):
    """(text, None), or (None, error) when jinja2 refuses."""
    names = {"messages": request["messages"], "tools": request.get("tools"), "documents": request.get("documents"),
             "add_generation_prompt": request.get("add_generation_prompt", False),
             # Python's filters can change a list that they are given.
             **copy.deepcopy(request.get("args", {}))}
    names |= {name: request[name] for name in ("bos_token", "eos_token") if name in request}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the code that jinja2 makes of a broken template
            return _compiled(request["template"]).render(**names), None
    except Exception as error:  # whatever a template makes Python raise
        return None, error


class Engine:
    """The test program `render_template`, which lies beside the tessera binary under test."""

    def __init__(self):
        program = pathlib.Path(daemon.binary()).resolve().parent / "tests" / "render_template"
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        encoding="utf-8")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0

    def render(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"render_template ended with {self.process.poll()} at {request['template']!r}"
        return json.loads(line)


ARGS = {
    "a": 7, "b": -3, "zero": 0, "f": 2.5, "g": 1e20, "yes": True, "no": False, "nothing": None, "empty": "",
    "s": "Hello, World", "t": "  padded\t\n", "u": "Straße ΟΔΟΣ ǆ 東京 🦙", "lines": "one\ntwo\r\n\nthree\x0bfour",
    "html": "<a href='x'>&\"</a>", "number": " 42 ", "words": "the quick-brown fox (jumps)",
    "l": [3, 1, 2], "names": ["b", "A", "c", "B", "a"], "nested": [[1, [2, 3]], [], [4]], "none": [],
    "mixed": [1, "x", None, 2.0, True], "d": {"one": 1, "two": [1, 2], "items": "shadowed", "Zed": None},
    "people": [{"name": "Ann", "age": 30, "tags": ["x"]}, {"name": "bob", "age": 25, "tags": []},
               {"name": "Cid", "age": 30, "home": {"city": "Ulm"}}],
    "tree": [{"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4, "kids": []}]}]}],
}

# One snippet a line.
_LINES = r"""
{{ a + b }}|{{ a - b }}|{{ a * b }}|{{ a / b }}|{{ a // b }}|{{ a % b }}|{{ a ** 2 }}|{{ 2 ** -1 }}
{{ -a // 2 }}|{{ -7 % 3 }}|{{ 7 % -3 }}|{{ 7.5 // 2 }}|{{ -7.5 % 2 }}|{{ 1e3 }}|{{ 10 / 4 }}|{{ 1_000 }}
{{ -2 ** 2 }}|{{ 2 ** 3 ** 2 }}|{{ - - a }}|{{ not a }}|{{ not not a }}|{{ +a }}|{{ -f }}|{{ -yes }}
{{ a / zero }}
{{ a % 0 }}
{{ 1.0 // 0 }}
{{ f }}|{{ g }}|{{ 1e16 }}|{{ 1e15 }}|{{ 0.0001 }}|{{ 0.00001 }}|{{ 100.0 }}|{{ 1/3 }}|{{ -0.0 }}
{{ 'a' ~ 1 ~ none ~ true ~ 2.0 ~ missing }}|{{ 'a' 'b' "c" }}|{{ 'x' * 3 }}|{{ 2 * [1, 'a'] }}|{{ 'x' * -1 }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ missing + 'a' }}
{{ 'a' + missing }}
{{ [1] + [2] }}|{{ (1,) + (2, 3) }}|{{ () }}|{{ (1,) }}|{{ [] }}|{{ {} }}|{{ {'a': 1, 2: [none]} }}|{{ [1] + (2,) }}
{{ 1 < 2 < 3 }}|{{ 1 < 3 < 2 }}|{{ 1 == 1.0 == true }}|{{ 'a' < 'b' }}|{{ [1, 2] < [1, 3] }}|{{ 'a' == "a" }}|{{ 1 != '1' }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ missing < 1 }}
{{ missing == missing2 }}|{{ missing == none }}|{{ missing != 1 }}|{{ none == none }}|{{ nothing is none }}
{{ 1 in l }}|{{ 9 not in l }}|{{ 'o' in s }}|{{ 'one' in d }}|{{ 1 in missing }}|{{ '' in empty }}|{{ true in l }}|{{ not 1 in l }}
{{ 1 in s }}
{{ 1 in 5 }}
{{ a or b }}|{{ zero or empty }}|{{ zero and b }}|{{ a and b }}|{{ missing or 'x' }}|{{ none or [] or 'last' }}
{{ 'x' if a else 'y' }}|{{ 'x' if zero }}|{{ 'x' if zero else 'y' if empty else 'z' }}|{{ ('x' if zero) is defined }}
{{ s[0] }}|{{ s[-1] }}|{{ s[1:4] }}|{{ s[::-1] }}|{{ s[::2] }}|{{ s[-3:] }}|{{ s[:-3] }}|{{ s[99] }}|{{ s[5:2] }}|{{ s[-99:99] }}
{{ u[0] }}|{{ u[4] }}|{{ u[-1] }}|{{ u[3:9] }}|{{ u[::-1] }}|{{ u|length }}|{{ u.find('Ο') }}|{{ u.split(' ')|last|length }}
{{ l[0] }}|{{ l[-1] }}|{{ l[1:] }}|{{ l[::-1] }}|{{ l[5] }}|{{ l[5] is defined }}|{{ l[none:2] }}|{{ (1, 2, 3)[1:] }}|{{ l['x'] }}
{{ l[::0] }}
{{ l.x }}|{{ l.0 }}|{{ d.one }}|{{ d['one'] }}|{{ d.missing }}|{{ d['items'] }}|{{ d.two[1] }}|{{ d.get('x') }}|{{ d.get('x', 5) }}
{{ d.missing.more }}
{{ missing.more }}
{{ missing['x'] }}
{{ missing() }}
{{ s.nope() }}
{{ none.x }}|{{ none['x'] }}|{{ a.x }}|{{ (5).x is defined }}
{{ d.items()|list }}|{{ d.keys()|list }}|{{ d.values()|list }}|{{ d|items|list }}|{{ d|list }}|{{ d|length }}|{{ d|first }}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}|{% for k in d %}{{ k }}{% endfor %}|{{ d.items()|length }}
{{ d }}|{{ l }}|{{ mixed }}|{{ nested }}|{{ "it's" }}|{{ ["it's", 'a"b', 'a\'b"c', 'n\nt\t\\'] }}|{{ people[2] }}
{{ s|upper }}|{{ s|lower }}|{{ s|title }}|{{ s|capitalize }}|{{ words|title }}|{{ words|capitalize }}|{{ words.title() }}
{{ u|upper }}|{{ u|lower }}|{{ u|title }}|{{ u|capitalize }}|{{ u.swapcase() }}|{{ u.title() }}|{{ 'ΣΑΣ Σ'|lower }}|{{ 'ﬁx ŉ'|upper }}
{{ [t|trim, t.strip(), t.lstrip(), t.rstrip(), s|trim('Hd'), s.strip('dH'), '--x--'.lstrip('-'), 'x'.rstrip('x')] }}
{{ '\u00a0\u3000x\u2003'|trim }}|{{ 5|trim }}|{{ none|trim }}|{{ missing|trim }}|{{ [' a ']|trim }}
{{ s.replace('l', 'L') }}|{{ s.replace('l', 'L', 1) }}|{{ s|replace('l', '') }}|{{ s|replace('o', '0', 1) }}|{{ 'ab'.replace('', '-') }}|{{ 'äb'|replace('', '-', 2) }}
{{ s.split() }}|{{ s.split(', ') }}|{{ s.split('l', 1) }}|{{ s.rsplit('l', 1) }}|{{ ' a  b '.split() }}|{{ ' a  b c '.split(none, 1) }}|{{ ' a  b c '.rsplit(none, 1) }}|{{ ''.split() }}|{{ ''.split(',') }}
{{ s.split('') }}
{{ lines.splitlines() }}|{{ lines.splitlines(true) }}|{{ 'a\r\nb\u2028c'.splitlines() }}|{{ ''.splitlines() }}
{{ s.startswith('He') }}|{{ s.endswith(('x', 'ld')) }}|{{ s.startswith('W', 7) }}|{{ s.find('o') }}|{{ s.rfind('o') }}|{{ s.find('zz') }}|{{ s.index('W') }}|{{ s.count('l') }}|{{ s.find('o', 5) }}
{{ s.index('zz') }}
{{ s.startswith(1) }}
{{ s.partition(', ') }}|{{ s.rpartition('o') }}|{{ s.partition('zz') }}|{{ 'abc'.removeprefix('a') }}|{{ 'abc'.removesuffix('c') }}
{{ 'abc'.isalpha() }}|{{ 'ab1'.isalnum() }}|{{ '12'.isdigit() }}|{{ '²'.isdigit() }}|{{ '½'.isnumeric() }}|{{ '١'.isdecimal() }}|{{ ' \t'.isspace() }}|{{ 'aB'.islower() }}|{{ 'AB1'.isupper() }}|{{ ''.isalpha() }}
{{ 'x'.center(5, '*') }}|{{ 'x'.center(4, '*') }}|{{ 'xy'.center(5, '*') }}|{{ 'x'.ljust(3) }}|{{ 'x'.rjust(3, '.') }}|{{ '-5'.zfill(5) }}|{{ 'x'|center(9) }}|
{{ ', '.join(names) }}|{{ ''.join([]) }}|{{ '-'.join('abc') }}|{{ l|join }}|{{ l|join(', ') }}|{{ mixed|join('|') }}|{{ people|join(',', attribute='name') }}|{{ d|join }}|{{ missing|join }}
{{ ', '.join(l) }}
{{ '{} {}'.format(1, 'a') }}|{{ '{1}{0}'.format(1, 2) }}|{{ '{x}'.format(x=s) }}|{{ '{{}}'.format() }}|{{ '{:>5}|{:<5}|{:^5}|{:*^7}'.format(1, 2, 3, 'x') }}|{{ '{:.2f} {:5.1f} {:e} {:g} {:%} {:,}'.format(f, f, f, f, f, 1234567) }}|{{ '{0[one]}'.format(d) }}|{{ '{!r}'.format(s) }}|{{ '{:05d} {:+d} {:x} {:#x} {:b} {:c}'.format(42, 42, 255, 255, 5, 65) }}
{{ '{}'.format() }}
{{ '{:d}'.format('x') }}
{{ '%s %s' % (1, 'a') }}|{{ '%d%%' % 5 }}|{{ '%05.1f|%-5s|%5s|%x|%c' % (f, 'a', 'b', 255, 'c') if false }}|{{ '%s' % s }}|{{ '%(one)s' % d }}|{{ '%r' % s }}|{{ '%05d|%+d|%e|%g|%5s|%-5s|' % (42, 42, f, f, 'x', 'y') }}
{{ '%s' % (1, 2) }}
{{ '%d' % 'x' }}
{{ '%s-%s'|format('a', 1) }}|{{ '%(x)s'|format(x=2) }}
{{ l|length }}|{{ s|count }}|{{ d|length }}|{{ missing|length }}|{{ l|first }}|{{ l|last }}|{{ s|first }}|{{ s|last }}|{{ none|first if false }}|{{ []|first }}|{{ []|last is defined }}
{{ a|length }}
{{ none|length }}
{{ missing|default('x') }}|{{ none|default('x') }}|{{ none|default('x', true) }}|{{ empty|d('y', boolean=true) }}|{{ empty|default('y') }}|{{ missing|default }}|{{ d.nope|d(1) }}|{{ missing|default(default_value=3) }}
{{ s|list }}|{{ l|list }}|{{ (1, 2)|list }}|{{ range(3)|list }}|{{ range(5, 1, -2)|list }}|{{ range(2, 4)|list }}|{{ range(0)|list }}|{{ range(3)|length }}|{{ range(9)[2] }}
{{ range(100001)|list|length }}
{{ range(1, 2, 0) }}
{{ l|sort }}|{{ names|sort }}|{{ names|sort(case_sensitive=true) }}|{{ names|sort(reverse=true) }}|{{ people|sort(attribute='age,name')|map(attribute='name')|join }}|{{ people|sort(attribute='age', reverse=true)|map(attribute='name')|list }}
{{ mixed|sort }}
{{ names|unique|list }}|{{ names|unique(case_sensitive=true)|list }}|{{ [1, 1.0, 2]|unique|list }}|{{ people|unique(attribute='age')|map(attribute='name')|list }}
{{ l|min }}|{{ l|max }}|{{ names|min }}|{{ names|max(case_sensitive=true) }}|{{ []|max is defined }}|{{ people|max(attribute='age') }}|{{ l|sum }}|{{ people|sum(attribute='age') }}|{{ l|sum(start=10) }}|{{ []|sum }}
{% for g in people|groupby('age') %}{{ g.grouper }}:{{ g.list|map(attribute='name')|join(',') }};{% endfor %}|{% for age, group in people|groupby('age') %}{{ age }}{{ group|length }}{% endfor %}|{{ names|groupby('0') if false }}|{% for k, v in people|groupby('home.city', default='?') %}{{ k }}{{ v|length }}{% endfor %}
{{ d|dictsort }}|{{ {'b': 2, 'A': 3, 'c': 1}|dictsort(by='value') }}|{{ {'b': 1, 'A': 2}|dictsort(true) }}|{{ {'b': 1, 'A': 2}|dictsort(reverse=true) }}
{{ l|reverse|list }}|{{ s|reverse }}|{{ l|batch(2)|list }}|{{ l|batch(2, 'x')|list }}|{{ range(7)|slice(3)|list }}|{{ range(7)|slice(3, '-')|list }}
{{ names|map('upper')|list }}|{{ names|map('replace', 'a', 'X')|join }}|{{ people|map(attribute='home.city', default='?')|list }}|{{ people|map(attribute='name')|map('lower')|join(' ') }}|{{ nested|map('length')|list }}
{{ l|select('odd')|list }}|{{ l|reject('odd')|list }}|{{ mixed|select|list }}|{{ mixed|reject|list }}|{{ l|select('gt', 1)|list }}|{{ mixed|select('string')|list }}|{{ l|select('in', [1, 2])|list }}
{{ people|selectattr('home')|map(attribute='name')|list }}|{{ people|selectattr('age', 'equalto', 30)|list|length }}|{{ people|rejectattr('age', 'eq', 30)|map(attribute='name')|first }}|{{ people|rejectattr('home')|list|length }}|{{ people|selectattr('home', 'defined')|list|length }}|{{ people|selectattr('age', '>', 26)|list|length }}
{{ l|map('nope')|list }}
{{ l|select('nope')|list }}
{{ s|nope }}
{{ s is nope }}
{{ d|tojson }}|{{ people|tojson }}|{{ u|tojson }}|{{ u|tojson(ensure_ascii=true) }}|{{ d|tojson(indent=2) }}|{{ people|tojson(indent=4) }}|{{ d|tojson(sort_keys=true) }}|{{ d|tojson(separators=(',', ':')) }}|{{ html|tojson }}|{{ [1.0, 1e100, true, none, 'a\u2028\x7f\x00']|tojson }}|{{ []|tojson(indent=1) }}|{{ {'a': {}}|tojson(indent='\t') }}|{{ (1, 2)|tojson }}|{{ {1: 2, none: 3, true: 4}|tojson }}
{{ missing|tojson }}
{{ [missing]|tojson }}
{{ '42'|int }}|{{ number|int }}|{{ 'x'|int }}|{{ 'x'|int(5) }}|{{ '1.9'|int }}|{{ 2.9|int }}|{{ -2.9|int }}|{{ none|int }}|{{ '0x1f'|int(0, 16) }}|{{ '1f'|int(base=16) }}|{{ true|int }}|{{ '1_0'|int }}|{{ 'ff'|int }}|{{ '1e3'|int }}
{{ missing|int }}
{{ '1.5'|float }}|{{ 'x'|float }}|{{ 'x'|float(1.5) }}|{{ 3|float }}|{{ ' 1e3 '|float }}|{{ 'inf'|float }}|{{ 'nan'|float }}|{{ '-Infinity'|float }}|{{ none|float }}
{{ -5|abs }}|{{ (-5)|abs }}|{{ (-2.5)|abs }}|{{ 2.5|round }}|{{ 3.5|round }}|{{ 2.567|round(2) }}|{{ 2.5|round(method='ceil') }}|{{ 2.19|round(1, 'floor') }}|{{ 5|round }}|{{ 1234.5|round(-2) }}|{{ 1250|round(-2) }}|{{ 0.125|round(2) }}|{{ 2.675|round(2) }}
{{ 'x'|abs }}
{{ 'x'|round }}
{{ 5|string + 'a' }}|{{ none|string }}|{{ [1]|string|length }}|{{ true|string }}|{{ missing|string }}
{{ html|e }}|{{ html|escape }}
{{ '<a>'|safe + html }}|{{ html + '<a>'|safe }}|{{ '<'|safe + '<'|safe }}|{{ ('<'|safe + '&') + '>' }}|{{ '<'|safe ~ '<' }}
{{ '<'|e + '<' }}|{{ '<'|e|e }}|{{ '<'|e|forceescape }}|{{ '<'|safe|string + '<' }}|{{ ('<'|safe ~ '<') + '<' }}|{{ '<' + '<' }}
{{ lines|indent }}|{{ lines|indent(2, true) }}|{{ 'a\n\nb'|indent(2, blank=true) }}|{{ 'a\n\nb'|indent('> ', first=true) }}|{{ ''|indent(3) }}|{{ 'a\n'|indent }}|
{{ words|wordcount }}|{{ u|wordcount }}|{{ ''|wordcount }}|{{ words|truncate(9) }}|{{ words|truncate(9, true) }}|{{ words|truncate(9, true, '…', 0) }}|{{ words|truncate(25) }}|{{ s|attr('x') }}
{{ a is defined }}|{{ missing is defined }}|{{ missing is undefined }}|{{ none is none }}|{{ a is number }}|{{ f is float }}|{{ a is integer }}|{{ yes is integer }}|{{ yes is number }}|{{ yes is boolean }}|{{ yes is true }}|{{ a is true }}|{{ no is false }}|{{ s is string }}
{{ d is mapping }}|{{ l is mapping }}|{{ l is sequence }}|{{ s is sequence }}|{{ d is sequence }}|{{ a is sequence }}|{{ l is iterable }}|{{ s is iterable }}|{{ a is iterable }}|{{ missing is iterable }}|{{ none is iterable }}|{{ range is callable }}|{{ s is callable }}
{{ 4 is even }}|{{ 3 is odd }}|{{ 9 is divisibleby 3 }}|{{ 9 is divisibleby(2) }}|{{ 1 is eq 1 }}|{{ 1 is ne 1 }}|{{ 1 is lt 2 }}|{{ 2 is ge(2) }}|{{ 1 is in [1] }}|{{ 'A' is upper }}|{{ 'a' is lower }}|{{ 1 is sameas 1 }}|{{ none is sameas none }}|{{ 'upper' is filter }}|{{ 'odd' is test }}
{{ a is not defined }}|{{ a is not none and s is string }}|{{ not a is defined }}|{{ missing is not defined or a }}|{{ 1 is not in [2] }}|{{ s is string is true }}
{% if a > 5 %}big{% elif a > 3 %}mid{% else %}small{% endif %}|{% if missing %}x{% else %}y{% endif %}|{% if not none %}z{% endif %}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}
{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{% if loop.previtem is defined %}p{% endif %};{% endfor %}
{% for x in [1, 1, 2] %}{% if loop.changed(x) %}new {{ x }}{% endif %};{% endfor %}
{% for x in [] %}x{% else %}none{% endfor %}|{% for x in missing %}x{% else %}none{% endfor %}|{% for x in l if x > 5 %}x{% else %}filtered{% endfor %}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% for x in l if x != 1 %}{{ x }}{{ loop.index }}{{ loop.length }}{% if not loop.last %},{% endif %}{% endfor %}
{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %}{{ a }}|{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [[1]] %}{% endfor %}
{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in l %}{% for y in names %}{% if y == 'c' %}{% break %}{% endif %}{{ x }}{{ y }}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for n in tree recursive %}{{ n.v }}@{{ loop.depth }}{% if n.kids %}({{ loop(n.kids) }}){% endif %}{% endfor %}
{% for n in tree %}{{ loop(n.kids) }}{% endfor %}
{% for c in 'aß' %}[{{ c }}]{% endfor %}|{% for x in (1, 2) %}{{ x }}{% endfor %}|{% for x in 1, 2 %}{{ x }}{% endfor %}
{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}|{% if true %}{% set x = 9 %}{% endif %}{{ x }}
{% set ns = namespace(n=0, s='') %}{% for i in l %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }}{{ ns.nope is defined }}{{ ns['n'] }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}
{% set d.x = 1 %}
{% set missing.x = 1 %}
{% set x, y = 1, 2 %}{{ y }}{{ x }}|{% set x = 1, 2 %}{{ x }}|{% set (x, y) = [3, 4] %}{{ x }}{{ y }}
{% set x %}a{{ a }}{% endset %}[{{ x }}]|{% set x | upper | replace('A', 'b') %}a{% endset %}[{{ x }}]|{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}
{% macro m(x, y=2, z='q') %}<{{ x }}{{ y }}{{ z }}>{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(y=5, x=4) }}{{ m() }}
{% macro m(x) %}{{ x }}{% endmacro %}{{ m(1, 2) }}
{% macro m(x) %}{{ x }}{% endmacro %}{{ m(1, x=2) }}
{% macro m(x) %}{{ x }}{% endmacro %}{{ m(z=2) }}
{% macro m(x) %}{{ x }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k=4) }}
{% macro m(x, y=x) %}{{ y }}{% endmacro %}{{ m(3) }}|{% macro fact(n) %}{{ n if n < 2 else n * fact(n - 1)|int }}{% endmacro %}{{ fact(5) }}
{% set v = 1 %}{% macro m() %}{{ v }}{{ w }}{% endmacro %}{% set v = 2 %}{% set w = 3 %}{{ m() }}
{% macro box(t) %}[{{ t }}:{{ caller() }}]{% endmacro %}{% call box('x') %}in {{ a }}{% endcall %}|{% macro each(l) %}{% for x in l %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(x, i) each(names) %}{{ i }}{{ x }}{% endcall %}
{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}
{% filter upper %}a{{ s }}{% endfilter %}|{% filter replace('a', 'b') | upper %}aac{% endfilter %}
{% with x = 5, y = a %}{{ x }}{{ y }}{% endwith %}{{ x is defined }}|{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}
{% generation %}a{% set inner = 1 %}{{ inner }}{% endgeneration %}{{ inner is defined }}
{{ dict(a=1, b='x') }}|{{ dict([['a', 1]]) }}|{{ dict({'z': 1}, y=2) }}|{% set j = joiner('; ') %}{{ j() }}a{{ j() }}b{{ j() }}
{{ raise_exception('no ' ~ s) }}
{{ l.append(4) }}
{{ d.update({'x': 1}) }}
{{ l.index(2) }}|{{ l.count(1) }}|{{ (1, 2, 1).count(1) }}|{{ l.copy() }}
{{ l.index(77) }}
{% raw %}{{ x }}{% if %}{% endraw %}|{# a comment #}|{#- x -#} |{{ '{{' }}|{{ '%}' }}
a  {%- if true %}  b  {%- endif -%}  c {{- a -}} d|{%+ if true %}x{% endif +%} y
{{ "a\tb\x41\u00e9\U0001F999\'\"\\\q" }}|{{ 'a
b' }}
{{ s.upper().lower()|length + 1 }}|{{ (s ~ t)|trim|length }}|{{ [1, 2][0] }}|{{ {'a': [1]}['a'][0] }}|{{ -l[0]|abs }}|{{ 'a' ~ 'b' if a else 'c' }}
{{ messages[0]['content'] + messages[-1]['role'] if messages else '' }}|{{ messages[0].role == 'user' }}
{{ s.strip is defined }}|{{ d.items is defined }}|{{ s['upper']() }}|{{ s.nope is defined }}
{{ (names|map('upper'))|join }}|{% if names|select('equalto', 'q') %}a generator is true{% endif %}|{% if names|select('equalto', 'q')|list %}x{% else %}empty{% endif %}
{% set f = s.upper %}{{ f() }}|{% set m = range %}{{ m(2)|list }}
{{ 1 if }}
{% endif %}
{% if a %}
{% for x in l %}{% endif %}{% endfor %}
{{ a b }}
{{ }}
{{ [1, 2 }}
{% unknown %}
{% break %}
{{ 'abc }}
{{ ' a ' | trim | length | string | int + 1 }}|{{ a |string|length }}|{{ l|map('string')|join('-') }}
"""

# With line ends, so that trim_blocks and lstrip_blocks have work.
_BLOCKS = [
    "a\n  {% if a %}\n  b\n  {% endif %}\nc\n",
    "{% for x in l %}\n    {{ x }}\n{% endfor %}\nend\n\n",
    "x {% if a %} y\n {%- if b %}\n\n z {% endif %}\n{% endif %}\n\n\nq",
    "  {# c #}\n  {{ a }}\n{# c #}{# d #}\nx",
    "{% raw %}\n  {{ a }}\n  {% endraw %}\nb\n",
    "{%- raw -%}\n  {{ a }}\n  {%- endraw -%}\nb\n",
    "a\r\nb\r{{ a }}\r\n",
    "\n\n{%- if a -%}\n\n x \n\n{%- endif -%}\n\n",
    "  {%+ if a %}x{% endif %}\n  y\n\t{% set q = 1 %}\t\n{{ q }}",
    "{% if a %}\n\n{% endif %}\n{{ a }}\n{% if a -%}\n  k\n{%- endif %}\n",
    "{{ a\n+\nb }}\n{%\nif\na\n%}\nx{% endif\n%}\n",
]


def cases():
    """Requests of `render`, each with a template of its own."""
    templates = [line for line in _LINES.replace("\n'", "\x00'").split("\n") if line] + _BLOCKS
    return [{"template": text, "args": ARGS, "messages": [{"role": "user", "content": "hi"}]} for text in templates]


class Generator:
    """Random templates of the subset. What is written compares equal, also what a wrong type makes of it."""

    NUMBERS = ["a", "b", "zero", "f", "0", "1", "-2", "3.5", "l[0]", "people[0].age", "l|length", "yes"]
    TEXTS = ["s", "t", "u", "lines", "words", "html", "empty", "number", "'x'", "'a-b'", "''", "messages[0].content",
             "messages[1]['role']", "people[2].home.city"]
    LISTS = ["l", "names", "nested", "none", "mixed", "people|map(attribute='name')|list", "range(4)|list", "[1, 'b']"]
    ANY = ["nothing", "missing", "d", "people", "d.two", "people[0]", "(1, 'a')"]
    VARIABLES = ["a", "s", "u", "l", "names", "nested", "mixed", "d", "people", "people[0]", "nothing", "missing", "d.two"]
    TEXT_FILTERS = ["upper", "lower", "title", "capitalize", "trim", "length", "replace('l', 'L')", "list", "first", "last",
                    "reverse|list", "indent(2)", "default('q', true)", "tojson", "wordcount", "string", "int(1)", "float",
                    "truncate(6, true)", "center(20)"]
    LIST_FILTERS = ["length", "first", "last", "join('-')", "sort", "unique|list", "reverse|list", "list", "tojson", "min", "max",
                    "sum", "map('string')|list", "select('string')|list", "reject('none')|list", "batch(2)|list",
                    "default([])", "string", "tojson(indent=1)"]
    METHODS = ["upper()", "lower()", "title()", "capitalize()", "strip()", "lstrip()", "rstrip()", "split()", "split('l')",
               "split(' ', 1)", "rsplit(none, 1)", "splitlines()", "startswith('H')", "endswith('d')", "find('o')",
               "replace('o', '0')", "count('l')", "partition(' ')", "swapcase()", "isalpha()", "center(9)", "zfill(8)",
               "islower()", "isupper()", "removeprefix('He')"]
    TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence",
             "iterable", "true", "false", "odd", "even", "divisibleby 2", "eq 1", "in l", "lower", "upper"]

    def __init__(self, random):
        self.random = random

    def expression(self, depth):
        pick = self.random.choice
        if depth == 0:
            return pick(pick([self.NUMBERS, self.TEXTS, self.LISTS, self.ANY]))
        one = self.expression(depth - 1)
        kind = self.random.randrange(15)
        if kind < 2:
            return f"({one}) {pick(['+', '-', '*', '/', '//', '%', '~', '~'])} ({self.expression(depth - 1)})"
        if kind < 4:
            return f"({one}) {pick(['==', '!=', '<', '<=', '>', '>=', 'in', 'not in'])} ({self.expression(depth - 1)})"
        if kind == 4:
            return f"({one}) {pick(['and', 'or'])} ({self.expression(depth - 1)})"
        if kind == 5:
            return f"{pick(['not', '-'])} ({one})"
        if kind == 6:
            return f"({one}) is {pick(['', 'not '])}{pick(self.TESTS)}"
        if kind == 7:
            return f"({one} if {self.expression(0)} else {self.expression(depth - 1)})"
        if kind == 8:
            # Of variables: jinja2 folds what it can already compute, and then lets slices of numbers pass.
            one = pick(self.VARIABLES)
            return f"({one})[{pick(['0', '-1', '1:', ':2', '::-1', '-2:', '7', chr(39) + 'one' + chr(39)])}]"
        if kind == 9:
            return f"({pick(self.TEXTS)}).{pick(self.METHODS)}"
        if kind == 10:
            return f"[{one}, {self.expression(depth - 1)}]"
        if kind == 11:
            return f"({pick(self.LISTS)})|{pick(self.LIST_FILTERS)}"
        if kind == 12:
            return f"({pick(self.TEXTS)})|{pick(self.TEXT_FILTERS)}"
        return f"({one})|{pick(pick([self.LIST_FILTERS, self.TEXT_FILTERS]))}"

    def template(self, depth=2):
        """A few statements around expressions."""
        space = lambda: self.random.choice(["", " ", "\n", "\n  ", "x"])  # noqa: E731
        minus = lambda: self.random.choice(["", "", "-"])  # noqa: E731

        def tag(text):
            return f"{space()}{{%{minus()} {text} {minus()}%}}{space()}"

        value = f"{{{{{minus()} {self.expression(self.random.randrange(3))} {minus()}}}}}"
        kind = self.random.randrange(8) if depth else 7
        if kind == 0:
            inner = tag("if loop.last") + self.template(depth - 1) + tag("endif")
            return tag(f"for x in {self.random.choice(self.LISTS)}") + "{{ x }}{{ loop.index }}" + inner + tag("endfor")
        if kind == 1:
            return (tag(f"if {self.expression(1)}") + self.template(depth - 1) + tag("else") + self.template(depth - 1)
                    + tag("endif"))
        if kind == 2:
            return tag(f"set v = {self.expression(1)}") + "{{ v }}" + self.template(depth - 1)
        if kind == 3:
            return tag("set v") + self.template(depth - 1) + tag("endset") + "[{{ v }}]"
        if kind == 4:
            return tag("macro m(p, q=1)") + "{{ p }}{{ q }}" + tag("endmacro") + f"{{{{ m({self.expression(1)}) }}}}"
        if kind == 5:
            return tag("filter upper") + self.template(depth - 1) + tag("endfilter")
        return value
