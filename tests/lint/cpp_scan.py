"""A small C++ scanner: blanks comments and literals, and finds function definitions by their braces.

It needs no compiler and no include paths. It is sound for the code style of this tree: whatever it cannot balance is
reported, never skipped in silence.
"""

import re
from dataclasses import dataclass


@dataclass
class Function:
    name: str
    line: int  # of the signature's first line, from 1
    lines: int  # signature to closing brace, both included


class Unbalanced(Exception):
    """Braces that do not match; the message says where."""


def _blank(text):
    return re.sub(r"[^\n]", " ", text)


_RAW_OPEN = re.compile(r'R"([^ ()\\\t\n]{0,16})\(')


def _literal_end(text, start):
    """The index after a string or character literal that opens at start."""
    quote, i = text[start], start + 1
    while i < len(text) and text[i] != quote and text[i] != "\n":
        i += 2 if text[i] == "\\" else 1
    return min(i + 1, len(text))


def strip(text, keep_strings=False):
    """The text with comments, and unless told otherwise literals, blanked; the same length and lines."""
    out, i, n = [], 0, len(text)
    while i < n:
        c = text[i]
        if text.startswith("//", i):
            end = i
            while end < n and text[end] != "\n":
                end += 2 if text[end] == "\\" else 1
            out.append(_blank(text[i:end]))
        elif text.startswith("/*", i):
            end = text.find("*/", i + 2)
            end = n if end < 0 else end + 2
            out.append(_blank(text[i:end]))
        elif c == "R" and (match := _RAW_OPEN.match(text, i)) and not (i and text[i - 1].isalnum()):
            end = text.find(")" + match.group(1) + '"', match.end())
            end = n if end < 0 else end + len(match.group(1)) + 2
            out.append(text[i:end] if keep_strings else '""' + _blank(text[i:end])[2:])
        elif c == '"' or (c == "'" and not (i and (text[i - 1].isalnum() or text[i - 1] == "_"))):
            end = _literal_end(text, i)
            out.append(text[i:end] if keep_strings else c + _blank(text[i:end])[2:] + c)
        else:
            end = i + 1
            out.append(c)
        i = end
    return "".join(out)


def _directives(lines):
    """Yields (first index, last index, text) of each preprocessor directive, continuations joined."""
    i = 0
    while i < len(lines):
        if lines[i].lstrip().startswith("#"):
            last = i
            while lines[last].rstrip().endswith("\\") and last + 1 < len(lines):
                last += 1
            yield i, last, lines[i].lstrip()[1:].strip()
            i = last
        i += 1


def choose_branches(stripped, first):
    """Blanks directives and all but one branch of each conditional: the first ones, or else the last ones."""
    lines = stripped.split("\n")
    spans, stack, drop = [], [], []  # drop: line ranges outside the chosen branch
    for begin, end, text in _directives(lines):
        spans.append((begin, end))
        if re.match(r"if(n?def)?\b", text):
            stack.append([end + 1])
        elif re.match(r"(else|elif)", text) and stack:
            stack[-1] += [begin, end + 1]
        elif text.startswith("endif") and stack:
            marks = stack.pop() + [begin]
            branches = list(zip(marks[0::2], marks[1::2]))
            keep = branches[0] if first else branches[-1]
            drop += [b for b in branches if b != keep]
    for begin, end in drop:
        for k in range(begin, end):
            lines[k] = ""
    for begin, end in spans:
        for k in range(begin, end + 1):
            lines[k] = ""
    return "\n".join(lines)


def _top_level(head):
    """The head with everything inside round or square brackets removed."""
    out, depth = [], 0
    for c in head:
        if c in "([":
            depth += 1
        if depth == 0:
            out.append(c)
        if c in ")]":
            depth -= 1
    return "".join(out)


def _drop_template(head):
    head = head.lstrip()
    while head.startswith("template"):
        start = head.find("<")
        if start < 0:
            return head
        depth, i = 0, start
        while i < len(head):
            depth += (head[i] == "<") - (head[i] == ">" and head[i - 1] != "-")
            i += 1
            if depth == 0:
                break
        head = head[i:].lstrip()
    return head


_LAMBDA = re.compile(r"\[[^\[\]]*\]\s*(<[^<>]*>\s*)?(\((?:[^()]|\([^()]*\))*\))?[\w\s:<>,&*\->()]*$")
_TYPE = re.compile(r"^(?:(?:typedef|static|const|constexpr|inline|extern)\s+)*(?:class|struct|union|enum)\b")


def _classify(head):
    """What a brace opens outside functions: namespace, type, function, lambda, member (of an init list) or init."""
    head = _drop_template(head.strip())
    head = re.sub(r"\[\[.*?\]\]|alignas\s*\([^()]*\)|__attribute__\s*\(\(.*?\)\)", " ", head).strip()
    if re.search(r"(^|\s)namespace\b", head) or re.match(r'^extern\s*"\s*"$', head):
        return "namespace"
    if head.count("(") > head.count(")"):
        return "lambda" if _LAMBDA.search(head) else "init"
    flat = _top_level(re.sub(r"operator\s*(\(\s*\)|[^\s\w(]+)", "operator_", head))
    if _TYPE.match(flat) and "(" not in head:
        return "type"
    if re.search(r"(?<![=!<>])=(?!=)", flat):
        return "lambda" if _LAMBDA.search(head) else "init"
    if ")" not in head:
        return "type" if _TYPE.match(flat) else "init"
    if re.search(r"(?<!:):(?!:)", flat) and re.search(r"[\w>]$", head):
        return "member"
    return "function"


def _name(head):
    head = _drop_template(head.strip())
    head = re.sub(r"\s+", " ", head)
    match = re.search(r"(operator\s*(\(\s*\)|[^\s\w(]+)|[~\w:]+)\s*\(([^()]*)", head)
    if not match:
        return "lambda"
    name = match.group(1)
    return f"{name}({match.group(3).strip()})" if re.match(r"(TYPED_)?TEST(_[FP])?$", name) else name


def _scan(text):
    """Function definitions in text without comments, literals and directives."""
    found, stack, head, head_line, line = [], [], "", 0, 1
    depth_in_function = 0
    for c in text:
        if c == "\n":
            line += 1
        if depth_in_function:
            depth_in_function += (c == "{") - (c == "}")
            if depth_in_function == 0:
                kind, saved_head, start = stack.pop()
                found.append(Function(_name(saved_head), start, line - start + 1))
                # A lambda's expression goes on; a definition is complete.
                head = saved_head + "{}" if kind == "lambda" else ""
            continue
        if c == "{":
            kind = _classify(head)
            if stack and stack[-1][0] == "init":
                kind = "lambda" if _LAMBDA.search(head) else "init"
            stack.append((kind, head, head_line or line))
            if kind in ("function", "lambda"):
                depth_in_function = 1
            if kind in ("namespace", "type", "init"):
                head = ""
        elif c == "}":
            if not stack:
                raise Unbalanced(f"line {line}: a closing brace with no opening one")
            kind, saved_head, start = stack.pop()
            head = saved_head + "{}" if kind in ("init", "member") else ""
            head_line = start if head else 0
        elif c == ";" and head.count("(") <= head.count(")"):
            head, head_line = "", 0
        else:
            if not head.strip() and not c.isspace():
                head, head_line = "", line
            head += c
        if c in "{}" and not head.strip():
            head, head_line = "", 0
        access = re.match(r"\s*(public|private|protected)\s*:$", head)
        if access:
            head, head_line = "", 0
    if stack or depth_in_function:
        raise Unbalanced(f"line {stack[-1][2] if stack else line}: a brace that is never closed")
    return found


def _long_macros(stripped):
    lines = stripped.split("\n")
    for begin, end, text in _directives(lines):
        if text.startswith("define"):
            yield Function("#" + " ".join(text.split()[:2]), begin + 1, end - begin + 1)


def functions(text):
    """Every function definition and macro of a source text, each once."""
    stripped = strip(text)
    seen = {}
    for first in (True, False):
        for function in _scan(choose_branches(stripped, first)):
            seen[(function.line, function.name)] = function
    for macro in _long_macros(stripped):
        seen[(macro.line, macro.name)] = macro
    return sorted(seen.values(), key=lambda f: f.line)
