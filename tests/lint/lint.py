#!/usr/bin/env python3
"""Checks the tree against its own structure: who may include whom, sizes, names, and headers that compile alone.

    tests/lint/lint.py [--root DIR] [--only RULE]... [--jobs N] [--quiet]

Each rule is one check. A finding is printed as `path:line: [rule] what; fix`; warnings never fail. The last line is
`N passed, N failed, N skipped`. Needs only the standard library, and g++ and protoc for `header-compiles`.
"""

import argparse
import concurrent.futures
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import cpp_scan  # noqa: E402

FOLDERS = ["config", "kernels", "kvcache", "blockzoo", "scheduler", "server"]  # each includes those on its left
TOP_LEVEL = {"CMakeLists.txt", "CMakePresets.json", "proto", "deploy", "tests", "README.md", "LICENSE", *FOLDERS}
CPP = (".cc", ".h", ".cu", ".cuh")
SIZED = CPP + (".proto", ".py", ".sh", ".cmake")
FILE_LINES, FUNCTION_LINES = 600, 60


@dataclass
class Finding:
    path: str
    line: int
    text: str
    warning: bool = False


class Skip(Exception):
    """The rule cannot run here; the message says why."""


class Tree:
    """The files that belong to the project: tracked ones and new ones that git does not ignore."""

    def __init__(self, root):
        self.root = pathlib.Path(root).resolve()
        self.paths = sorted(self._listed())
        self._text = {}

    def _listed(self):
        if (self.root / ".git").exists():
            command = ["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode == 0:
                names = done.stdout.decode().split("\0")
                return [n for n in names if n and (self.root / n).is_file()]
        return [str(p.relative_to(self.root)) for p in self.root.rglob("*")
                if p.is_file() and p.relative_to(self.root).parts[0] not in ("build", ".venv", ".cache")
                and "__pycache__" not in p.parts]

    def text(self, path):
        if path not in self._text:
            self._text[path] = (self.root / path).read_text(encoding="utf-8", errors="replace")
        return self._text[path]

    def lines(self, path):
        return self.text(path).split("\n")

    def ending(self, *suffixes):
        return [p for p in self.paths if p.endswith(suffixes)]

    def product(self):
        """C++ of the six folders."""
        return [p for p in self.ending(*CPP) if p.split("/")[0] in FOLDERS]


_INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


def includes(tree, path):
    """Yields (line, bracket, target) of each include line."""
    for number, line in enumerate(tree.lines(path), 1):
        match = _INCLUDE.match(line)
        if match:
            yield number, match.group(1), match.group(2)


def is_generated_proto(target):
    return target.endswith((".pb.h", ".pb.inc"))


def check_include_direction(tree):
    for path in tree.product():
        own = path.split("/")[0]
        for line, _, target in includes(tree, path):
            top = target.split("/")[0]
            if top in FOLDERS and FOLDERS.index(top) > FOLDERS.index(own):
                yield Finding(path, line, f"{own} may not include {target}; it may use {FOLDERS[:FOLDERS.index(own)]}")
            elif top == "tests" or (top == "proto" and own != "server"):
                yield Finding(path, line, f"{own} may not include {target}")
            elif ".." in target.split("/"):
                yield Finding(path, line, f"name {target} from the tree's root")


# (what, pattern of the target, where it is allowed, the fix)
FORBIDDEN = [
    ("gRPC", r"^(grpc|grpcpp|grpc\+\+)/", lambda p: p.startswith(("server/", "tests/")),
     "only server speaks gRPC"),
    ("generated protobuf", r"\.pb\.(h|inc)$|^google/protobuf/", lambda p: p.startswith(("server/", "tests/")),
     "only server and tests see the wire contracts"),
    ("CUDA", r"^(cuda|cublas|cudnn|curand|cusparse|cutlass|cute|cub|thrust|nccl|nvtx)[\w/]*(\.h|\.hpp|\.cuh)$",
     lambda p: p.startswith(("kernels/cuda/", "tests/kernels/cuda/")), "CUDA stays under kernels/cuda"),
    ("prometheus", r"^prometheus/", lambda p: p == "config/foundation/metrics.cc",
     "use config/foundation/metrics.h"),
    ("nlohmann/json.hpp", r"^nlohmann/json\.hpp$", lambda p: p.endswith(".cc"), "use nlohmann/json_fwd.hpp in headers"),
    ("<regex>", r"^regex$", lambda p: False, "use PCRE2, or a scanner"),
    ("absl::Mutex", r"^absl/synchronization/", lambda p: p.startswith(("server/", "tests/")),
     "use std::mutex: Debian's absl::Mutex gives false races under ThreadSanitizer"),
]


def check_forbidden_header(tree):
    for path in tree.ending(*CPP):
        for line, _, target in includes(tree, path):
            for what, pattern, allowed, fix in FORBIDDEN:
                if re.search(pattern, target) and not allowed(path):
                    yield Finding(path, line, f"{what} is not allowed here; {fix}")


def check_file_length(tree):
    for path in tree.ending(*SIZED):
        count = tree.text(path).count("\n")
        if count > FILE_LINES:
            yield Finding(path, FILE_LINES, f"{count} lines, at most {FILE_LINES}; split it by job")


def check_function_length(tree):
    for path in tree.ending(*CPP):
        try:
            functions = cpp_scan.functions(tree.text(path))
        except cpp_scan.Unbalanced as error:
            yield Finding(path, 1, f"braces do not balance: {error}")
            continue
        for function in functions:
            if function.lines > FUNCTION_LINES:
                yield Finding(path, function.line,
                              f"{function.name} has {function.lines} lines, at most {FUNCTION_LINES}; extract steps")


_WORDS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\bnot (yet )?implemented\b|\bfor now\b", re.IGNORECASE)


def check_unfinished_words(tree):
    for path in tree.ending(*SIZED, "CMakeLists.txt"):
        if path.startswith("tests/lint/"):
            continue  # these files name the words
        for number, line in enumerate(tree.lines(path), 1):
            match = _WORDS.search(line)
            if match and (match.group(0).isupper() or match.group(1) is None):
                yield Finding(path, number, f'"{match.group(0)}": finish it, or open an issue')


def check_environment(tree):
    for path in tree.product():
        if path.startswith("config/"):
            continue
        for number, line in enumerate(cpp_scan.strip(tree.text(path)).split("\n"), 1):
            if re.search(r"\b(secure_)?getenv\s*\(|\benviron\b", line):
                yield Finding(path, number, "reads the environment; take a value from config")


def check_exceptions(tree):
    for path in tree.product():
        for number, line in enumerate(cpp_scan.strip(tree.text(path)).split("\n"), 1):
            if re.search(r"\bthrow\b", line):
                yield Finding(path, number, "throws; return absl::Status")


def check_pragma_once(tree):
    for path in tree.ending(".h", ".cuh"):
        if not re.search(r"^#pragma once$", tree.text(path), re.MULTILINE) and not path.endswith("-inl.h"):
            yield Finding(path, 1, "lacks #pragma once")


def check_top_level(tree):
    entries = {p.split("/")[0] for p in tree.paths}
    for entry in sorted(entries - TOP_LEVEL):
        if not entry.startswith("."):
            yield Finding(entry, 1, "does not belong at the top level")
    for entry in sorted(TOP_LEVEL - entries):
        yield Finding(entry, 1, "is missing at the top level")


def check_folder_readme(tree):
    for folder in FOLDERS + ["proto", "deploy", "tests"]:
        readme = f"{folder}/README.md"
        if readme not in tree.paths:
            yield Finding(readme, 1, "is missing: concepts, ownership, invariants, \"to add one\"")
        elif folder in FOLDERS and not re.search(r"to add (an?|one)\b", tree.text(readme), re.IGNORECASE):
            yield Finding(readme, 1, 'lacks its "To add one" part')


def check_format(tree):
    program = shutil.which("clang-format-14")
    if not program:
        raise Skip("clang-format-14 is not installed (deploy/install-deps.sh optional)")
    paths = tree.ending(*CPP)
    for begin in range(0, len(paths), 64):
        command = [program, "--dry-run", "--ferror-limit=1", *paths[begin:begin + 64]]
        done = subprocess.run(command, cwd=tree.root, capture_output=True, text=True, check=False)
        for match in re.finditer(r"^(.+?):(\d+):\d+: (?:warning|error): code should be", done.stderr, re.MULTILINE):
            yield Finding(match.group(1), int(match.group(2)), "is not formatted; fix: clang-format-14 -i FILE")


def check_test_mirror(tree):
    stems = {}
    for path in tree.ending("_test.cc"):
        stems.setdefault(pathlib.PurePath(path).name[:-len("_test.cc")], []).append(path)
    for path in tree.product():
        if not path.endswith(".cc") or tree.text(path).count("\n") < 80:
            continue
        folder, stem = path.split("/")[0], pathlib.PurePath(path).stem
        if not any(f"/{folder}/" in p or p.startswith("tests/kernels/") for p in stems.get(stem, [])):
            yield Finding(path, 1, f"has no tests/unit/{folder}/…/{stem}_test.cc", warning=True)


class HeaderCompiler:
    """Compiles each header alone, twice included; a header whose text and dependencies are known good is not run.

    Headers that read the same headers of other projects, however deep, share a precompiled header of exactly those: it
    declares nothing that they do not include themselves, and saves reading it again.
    """

    def __init__(self, tree, jobs):
        self.tree, self.jobs = tree, jobs
        self.cache = tree.root / "build" / "lint"
        self.compiler = shutil.which("g++")
        if not self.compiler:
            raise Skip("g++ is not installed (deploy/install-deps.sh build)")
        version = subprocess.run([self.compiler, "--version"], capture_output=True, check=True).stdout
        self.salt = hashlib.sha256(version + b"\0" + pathlib.Path(__file__).read_bytes()).hexdigest()
        self._digests = {}

    def flags(self):
        found = ["-std=c++20", "-fsyntax-only", "-w", "-ffp-contract=off", f"-I{self.tree.root}",
                 f"-I{self.cache / 'proto'}", f'-DTESSERA_SOURCE_DIR="{self.tree.root}"']
        return found

    def make_protos(self):
        protos = self.tree.ending(".proto")
        digest = hashlib.sha256("\0".join(self.tree.text(p) for p in protos).encode()).hexdigest()
        stamp, out = self.cache / "proto.stamp", self.cache / "proto"
        if stamp.exists() and stamp.read_text() == digest:
            return
        plugin = shutil.which("grpc_cpp_plugin")
        if protos and not (shutil.which("protoc") and plugin):
            raise Skip("protoc or grpc_cpp_plugin is not installed (deploy/install-deps.sh build)")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        if protos:
            subprocess.run(["protoc", f"-I{self.tree.root / 'proto'}", f"--cpp_out={out}", f"--grpc_out={out}",
                            f"--plugin=protoc-gen-grpc={plugin}", *[str(self.tree.root / p) for p in protos]], check=True)
        stamp.write_text(digest)

    def dependencies(self, path, seen):
        for _, bracket, target in includes(self.tree, path):
            for candidate in (target, str(pathlib.PurePath(path).parent / target), f"proto/{target[:-5]}.proto"):
                if candidate in self.known and candidate not in seen:
                    seen.add(candidate)
                    if candidate.endswith(CPP):
                        self.dependencies(candidate, seen)
        return seen

    def digest(self, path):
        names = sorted(self.dependencies(path, {path}))
        parts = [self.salt, path] + [hashlib.sha256(self.tree.text(n).encode()).hexdigest() + n for n in names]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def foreign(self, path, seen):
        """Headers of other projects that `path` reads, through our own headers too; the standard library's are not among
        them."""
        found = set()
        for _, _, target in includes(self.tree, path):
            own = next((c for c in (target, str(pathlib.PurePath(path).parent / target)) if c in self.known), None)
            if own is None and "/" in target:
                found.add(target)
            elif own is not None and own not in seen:
                seen.add(own)
                found |= self.foreign(own, seen)
        return found

    def precompile(self, targets):
        """The header that includes `targets`, precompiled; None when that fails."""
        text = "".join(f"#include <{target}>\n" for target in targets)
        header = self.cache / "pch" / (hashlib.sha256(text.encode()).hexdigest()[:16] + ".h")
        header.parent.mkdir(exist_ok=True)
        header.write_text(text)
        flags = [flag for flag in self.flags() if flag != "-fsyntax-only"]
        done = subprocess.run([self.compiler, *flags, "-x", "c++-header", str(header), "-o", f"{header}.gch"],
                              capture_output=True, cwd=self.tree.root, check=False)
        return header if done.returncode == 0 else None

    def precompiled(self, paths, pool):
        """{path: precompiled header} of the paths that share one."""
        groups = {}
        for path in paths:
            groups.setdefault(tuple(sorted(self.foreign(path, {path}))), []).append(path)
        shared = [targets for targets, members in groups.items() if targets and len(members) > 1]
        made = dict(zip(shared, pool.map(self.precompile, shared)))
        return {path: made[targets] for targets in shared if made[targets] for path in groups[targets]}

    def compile(self, path, precompiled):
        source = f'#include "{path}"\n#include "{path}"\n'
        first = ["-include", str(precompiled)] if precompiled else []
        return subprocess.run([self.compiler, *self.flags(), *first, "-x", "c++", "-"], input=source, text=True,
                              capture_output=True, cwd=self.tree.root, check=False)

    def run(self):
        self.cache.mkdir(parents=True, exist_ok=True)
        self.known = set(self.tree.paths)
        self.make_protos()
        record = self.cache / "headers.txt"
        good = set(record.read_text().split()) if record.exists() else set()
        headers = [p for p in self.tree.ending(".h") if not p.startswith("kernels/cuda/")]
        digests = {p: self.digest(p) for p in headers}
        pending = [p for p in headers if digests[p] not in good]
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            shared = self.precompiled(pending, pool)
            for path, done in zip(pending, pool.map(lambda p: self.compile(p, shared.get(p)), pending)):
                if done.returncode == 0:
                    good.add(digests[path])
                    continue
                first = next((line for line in done.stderr.split("\n") if "error" in line), done.stderr[:200])
                yield Finding(path, 1, f"does not compile alone: {first}")
        shutil.rmtree(self.cache / "pch", ignore_errors=True)
        record.write_text("\n".join(sorted(good & set(digests.values()))) + "\n")


def rules(jobs):
    return {
        "include-direction": check_include_direction,
        "forbidden-header": check_forbidden_header,
        "file-length": check_file_length,
        "function-length": check_function_length,
        "unfinished-words": check_unfinished_words,
        "environment": check_environment,
        "exceptions": check_exceptions,
        "pragma-once": check_pragma_once,
        "top-level": check_top_level,
        "folder-readme": check_folder_readme,
        "format": check_format,
        "test-mirror": check_test_mirror,
        "header-compiles": lambda tree: HeaderCompiler(tree, jobs).run(),
    }


def run(root, only=None, jobs=2, out=sys.stdout):
    """Runs the rules; returns {rule: "passed" | "failed" | "skipped"}."""
    tree, results = Tree(root), {}
    for name, rule in rules(jobs).items():
        if only and name not in only:
            continue
        try:
            findings = list(rule(tree))
        except Skip as reason:
            print(f"[{name}] skipped: {reason}", file=out)
            results[name] = "skipped"
            continue
        for finding in findings:
            kind = "warning: " if finding.warning else ""
            print(f"{finding.path}:{finding.line}: {kind}[{name}] {finding.text}", file=out)
        results[name] = "failed" if any(not f.warning for f in findings) else "passed"
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", default=str(pathlib.Path(__file__).resolve().parents[2]))
    parser.add_argument("--only", action="append", metavar="RULE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    arguments = parser.parse_args()
    unknown = set(arguments.only or []) - set(rules(1))
    if unknown:
        parser.error(f"no rule {sorted(unknown)}; there are {sorted(rules(1))}")
    results = run(arguments.root, arguments.only, arguments.jobs)
    counts = [sum(state == r for r in results.values()) for state in ("passed", "failed", "skipped")]
    print("lint: {} passed, {} failed, {} skipped".format(*counts))
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
