"""Code objects: what one does, as a hash, and the source that it was compiled from.

Source is found by compiling what the file or the cell says and comparing: what is returned is the text of the code that
runs, not of an older or newer one of the same name. Line numbers, comments, layout and docstrings are no part of
the hash.
"""

from __future__ import annotations
import __future__

import ast
import dis
import hashlib
import linecache
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

FUTURES = 0
for _feature in __future__.all_feature_names:
    FUTURES |= getattr(__future__, _feature).compiler_flag
FLAGS = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x200
"""Of a code object's flags those that say what it does: how it takes arguments, and whether it is a generator or async."""
QUIET = ("PUSH_NULL", "CACHE", "PRECALL", "NOP", "EXTENDED_ARG", "NOT_TAKEN")
ALIKE = {"LOAD_METHOD": "LOAD_ATTR", "CALL_METHOD": "CALL"}
JUMPS = {*dis.hasjrel, *dis.hasjabs}
Found = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@lru_cache(maxsize=4096)
def code_digest(code: CodeType) -> str:
    """The hash of what a code object does, and of those inside it.

    Instructions count by what they do: Python writes `np.sum(x)` in other bytes where it sees `import np` in the same text.

    >>> one, two = (compile(text, "", "eval") for text in ("1 + x", "(1 +   x)  # again"))
    >>> code_digest(one) == code_digest(two)
    True
    """
    held = hashlib.sha256()
    held.update(repr((code.co_varnames[:_arguments(code)], code.co_argcount, code.co_posonlyargcount,
                      code.co_kwonlyargcount, code.co_freevars, code.co_flags & FLAGS)).encode())
    steps = [one for one in dis.get_instructions(code) if one.opname not in QUIET]
    places = [one.offset for one in steps]
    for one in steps:
        what = bisect_left(places, one.argval) if one.opcode in JUMPS else one.argval
        held.update(f"{ALIKE.get(one.opname, one.opname)} {_constant(what)}".encode("utf-8", "surrogatepass"))
    for entry in dis.Bytecode(code).exception_entries:  # type: ignore[attr-defined]
        spots = [bisect_left(places, offset) for offset in (entry.start, entry.end, entry.target)]
        held.update(repr((spots, entry.depth, entry.lasti)).encode())
    return held.hexdigest()


def _arguments(code: CodeType) -> int:
    return code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 0x4) + bool(code.co_flags & 0x8)


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return f"code {code_digest(value)};"
    if isinstance(value, frozenset):
        return f"set {sorted(map(_constant, value))};"
    if isinstance(value, tuple):
        return f"tuple {[_constant(item) for item in value]};"
    return f"{type(value).__name__} {value!r};"


def inner(code: CodeType) -> Iterator[CodeType]:
    """A code object and all those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from inner(constant)


def source_of(function: FunctionType) -> tuple[str, bool]:
    """The text of a function with its decorators, and whether it is known to be the code that runs.

    Returns:
        The text as it stands, indentation included; "" where there is none. False where no text compiles to this code: it
        was made by a program, or rewritten after it was read.
    """
    code, wanted = function.__code__, code_digest(function.__code__)
    guess = ""
    for text in _texts(code.co_filename, function.__globals__):
        for node in _named(text, code.co_name, code.co_firstlineno):
            piece = segment(text, node)
            try:
                if code_digest(compiled(piece, code.co_name, code.co_freevars, code.co_flags)) == wanted:
                    return piece, True
            except (SyntaxError, LookupError, ValueError):
                continue
            if _first_line(node) == code.co_firstlineno:
                guess = guess or piece
    return guess, False


def _texts(filename: str, names: dict[str, Any]) -> Iterator[str]:
    """What is known of a file: as it was when it was first looked at, and as it is now."""
    held = "".join(linecache.getlines(filename, names))
    yield held
    linecache.checkcache(filename)
    if (now := "".join(linecache.getlines(filename, names))) != held:
        yield now


@lru_cache(maxsize=64)
def parsed(text: str) -> ast.Module | None:
    """The tree of a text, or None where it is no Python."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def _named(text: str, name: str, line: int) -> list[Found]:
    """The functions of a name, those at the line first."""
    tree = parsed(text)
    if tree is None:
        return []
    found = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
             and getattr(node, "name", "<lambda>") == name]
    return sorted(found, key=lambda node: abs(_first_line(node) - line))[:200]


def _first_line(node: Any) -> int:
    return min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])


def segment(text: str, node: Any) -> str:
    """The text of a node: whole lines, or what stands between the ends of an expression."""
    if isinstance(node, ast.Lambda):
        return ast.get_source_segment(text, node) or ""
    return "".join(text.splitlines(keepends=True)[_first_line(node) - 1:node.end_lineno])


def statement(piece: str) -> Any:
    """The tree of a piece of source, whatever its indentation."""
    if piece[:1] in (" ", "\t"):
        return ast.parse("if 1:\n" + piece).body[0].body[0]  # type: ignore[attr-defined]
    return ast.parse(piece).body[0]


def compiled(piece: str, name: str, free: tuple[str, ...], flags: int, file: str = "<kept>") -> CodeType:
    """The code object of a function's text; nothing runs, neither defaults nor decorators.

    Raises:
        SyntaxError: it cannot be read.
        LookupError: it holds no such function.
    """
    outer = ast.parse(f"def outer({', '.join(free)}):\n    pass")
    if name == "<lambda>":
        body: Any = ast.Expr(_bare(ast.parse(f"({piece}\n)", mode="eval").body))
    else:
        body = _bare(statement(piece))
    outer.body[0].body = [body]  # type: ignore[attr-defined]
    tree = outer if free else ast.Module([body], [])
    whole = compile(ast.fix_missing_locations(tree), file, "exec", flags=flags & FUTURES, dont_inherit=True)
    for code in inner(whole):
        if code.co_name == name:
            return code
    raise LookupError(f"no {name} in this text")


def _bare(node: Any) -> Any:
    """A function without what runs when it is defined: decorators, defaults, annotations."""
    nothing = ast.Constant(None)
    node.args.defaults = [nothing for _ in node.args.defaults]
    node.args.kw_defaults = [None if one is None else nothing for one in node.args.kw_defaults]
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    for argument in filter(None, every):
        argument.annotation = None
    if not isinstance(node, ast.Lambda):
        node.decorator_list, node.returns = [], None
    return node
