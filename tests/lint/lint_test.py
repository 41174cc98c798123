#!/usr/bin/env python3
"""The lint's own test: each rule is silent on a small sound tree and fails on that tree with one violation in it."""

import io
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import cpp_scan  # noqa: E402
import lint  # noqa: E402

HEADER = "#pragma once\n#include <vector>\nnamespace tessera {\nstd::vector<int> Made();\n}  // namespace tessera\n"
LONG_BODY = "".join(f"  x += {i};\n" for i in range(70))


def sound_tree():
    files = {name: "text\n" for name in ("CMakeLists.txt", "CMakePresets.json", "README.md", "LICENSE")}
    files.update({f"{f}/README.md": "# Concepts\n\nTo add one: write it.\n" for f in lint.FOLDERS})
    files.update({f"{f}/README.md": "text\n" for f in ("proto", "deploy", "tests")})
    files[".clang-format"] = "BasedOnStyle: Google\nColumnLimit: 100\n"
    files["kernels/made.h"] = HEADER
    files["kernels/made.cc"] = '#include "kernels/made.h"\n\n#include "config/base.h"\n'
    files["config/base.h"] = "#pragma once\n#include <nlohmann/json_fwd.hpp>\n"
    files["config/base.cc"] = '#include "config/base.h"\n\n#include <cstdlib>\n#include <nlohmann/json.hpp>\n'
    return files


# rule -> list of (what is wrong, {path: text})
VIOLATIONS = {
    "include-direction": [
        ("kernels includes scheduler", {"kernels/a.h": '#pragma once\n#include "scheduler/b.h"\n'}),
        ("config includes kernels", {"config/a.cc": '#include "kernels/made.h"\n'}),
        ("product includes tests", {"server/a.cc": '#include "tests/support/x.h"\n'}),
        ("scheduler includes proto", {"scheduler/a.cc": '#include "proto/tessera/v1/a.h"\n'}),
        ("relative path", {"kernels/cpu/a.cc": '#include "../made.h"\n'}),
    ],
    "forbidden-header": [
        ("gRPC outside server", {"scheduler/a.cc": "#include <grpcpp/grpcpp.h>\n"}),
        ("protobuf outside server", {"scheduler/a.cc": '#include "tessera/v1/service.pb.h"\n'}),
        ("CUDA outside kernels/cuda", {"kernels/a.cc": "#include <cuda_runtime.h>\n"}),
        ("prometheus elsewhere", {"server/a.cc": "#include <prometheus/counter.h>\n"}),
        ("json.hpp in a header", {"server/a.h": "#pragma once\n#include <nlohmann/json.hpp>\n"}),
        ("<regex>", {"server/a.cc": "#include <regex>\n"}),
        ("absl::Mutex under scheduler", {"scheduler/a.cc": '#include "absl/synchronization/mutex.h"\n'}),
    ],
    "file-length": [("601 lines", {"server/a.cc": "\n" * 601}), ("a long script", {"tests/a.py": "\n" * 601})],
    "function-length": [
        ("a long function", {"server/a.cc": f"int F(int x) {{\n{LONG_BODY}  return x;\n}}\n"}),
        ("a long method", {"server/a.h": f"#pragma once\nclass A {{\n  int F(int x) const {{\n{LONG_BODY}return x;\n}}\n}};\n"}),
        ("a long constructor", {"server/a.cc": f"A::A(int x) : a_{{x}}, b_(1) {{\n{LONG_BODY}}}\n"}),
        ("a long lambda at file scope", {"server/a.cc": f"const auto kF = [](int x) {{\n{LONG_BODY}return x; }};\n"}),
        ("a long test", {"tests/unit/server/a_test.cc": f"TEST(A, B) {{\n  int x = 0;\n{LONG_BODY}}}\n"}),
        ("a long else branch", {"server/a.cc": f"#if A\nint F() {{ return 1; }}\n#else\nint F(int x) {{\n{LONG_BODY}return x;\n}}\n#endif\n"}),
        ("a long macro", {"server/a.cc": "#define A(x) \\\n" + "  x; \\\n" * 70 + "  x\n"}),
        ("an open brace", {"server/a.cc": "int F() {\n"}),
    ],
    "unfinished-words": [
        ("a task word", {"server/a.cc": "// TODO: more\n"}),
        ("a task word in Python", {"tests/a.py": "# FIXME\n"}),
        ("unfinished", {"server/a.cc": 'const char* k = "not implemented";\n'}),
    ],
    "environment": [("getenv in kernels", {"kernels/a.cc": 'auto* k = std::getenv("X");\n'})],
    "exceptions": [("throw", {"server/a.cc": "void F() { throw 1; }\n"})],
    "pragma-once": [("no guard", {"server/a.h": "int F();\n"})],
    "top-level": [("an extra folder", {"misc/a.txt": "x\n"}), ("a missing file", {"LICENSE": None})],
    "folder-readme": [("none", {"kvcache/README.md": None}), ("no recipe", {"kvcache/README.md": "# Cache\n"})],
    "format": [("two spaces", {"server/a.cc": "int  F( );\n"})],
    "header-compiles": [
        ("a missing include", {"server/a.h": "#pragma once\nstd::string F();\n"}),
        ("a missing dependency", {"server/a.h": '#pragma once\n#include "server/none.h"\n'}),
    ],
}


class LintTest(unittest.TestCase):
    def results(self, changes, only):
        files = {**sound_tree(), **changes}
        with tempfile.TemporaryDirectory() as folder:
            for path, text in files.items():
                if text is not None:
                    target = pathlib.Path(folder, path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(text)
            out = io.StringIO()
            return lint.run(folder, only, jobs=2, out=out), out.getvalue()

    def test_sound_tree_passes(self):
        results, text = self.results({}, None)
        self.assertNotIn("failed", results.values(), text)
        self.assertEqual(set(results), set(lint.rules(1)))

    def test_each_violation_fails(self):
        for rule, cases in VIOLATIONS.items():
            for what, changes in cases:
                with self.subTest(rule=rule, what=what):
                    results, text = self.results(changes, [rule])
                    if results[rule] != "skipped":
                        self.assertEqual(results[rule], "failed", what)
                        self.assertIn(f"[{rule}]", text)

    def test_every_rule_has_a_violation_or_only_warns(self):
        self.assertEqual(set(lint.rules(1)) - set(VIOLATIONS), {"test-mirror"})

    def test_mirror_warns(self):
        results, text = self.results({"server/a.cc": "int x;\n" * 90}, ["test-mirror"])
        self.assertEqual(results["test-mirror"], "passed")
        self.assertIn("server/a.cc:1: warning", text)

    def test_known_good_headers_are_not_compiled_again(self):
        with tempfile.TemporaryDirectory() as folder:
            for path, text in sound_tree().items():
                target = pathlib.Path(folder, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
            tree = lint.Tree(folder)
            self.assertEqual(list(lint.HeaderCompiler(tree, 2).run()), [])
            again = lint.HeaderCompiler(lint.Tree(folder), 2)
            again.compile = lambda path: self.fail(f"{path} compiled again")
            self.assertEqual(list(again.run()), [])
            pathlib.Path(folder, "config/base.h").write_text("#pragma once\nbroken\n")
            findings = list(lint.HeaderCompiler(lint.Tree(folder), 2).run())
            self.assertEqual([f.path for f in findings], ["config/base.h"])


class ScanTest(unittest.TestCase):
    def names(self, text):
        return [(f.name, f.lines) for f in cpp_scan.functions(text)]

    def test_what_is_no_function(self):
        self.assertEqual(self.names("namespace a {\nstruct B { int c = 1; std::vector<int> d{1, 2}; };\n}\n"
                                    "enum class E { kA };\nconst int kT[] = {1, 2};\n"
                                    "constexpr Foo kFoo{Bar(1), {2}};\n"), [])

    def test_functions(self):
        text = ("template <typename T = std::vector<int>>\nbool F(T t, int n = 3) {\n  if (n) { return true; }\n}\n"
                "A::A(int x)\n    : a_{x}, b_{{1, 2}}, c_(3) {}\n"
                "bool operator==(const A& a, const A& b) { return true; }\n"
                'extern "C" {\nint G() noexcept { return \'{\'; }\n}\n'
                'auto H() -> int { return F(R"({{)"); }  // }\n')
        self.assertEqual(self.names(text), [("F", 4), ("A::A", 2), ("operator==", 1), ("G", 1), ("H", 1)])

    def test_tables_of_lambdas(self):
        text = "const Entry kTable[] = {\n  {\"a\", [](int x) {\n    return x;\n  }},\n  {\"b\", nullptr},\n};\nint F() { return 1; }\n"
        self.assertEqual(self.names(text), [("lambda", 3), ("F", 1)])

    def test_lines_survive_comments(self):
        self.assertEqual([f.line for f in cpp_scan.functions("/* {\n { */\n// {\nint F() {\n}\n")], [4])


if __name__ == "__main__":
    unittest.main()
