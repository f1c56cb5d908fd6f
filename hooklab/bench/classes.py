"""Classes of the user's: what they are made of, and their source where it is the one that runs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from .source import FUTURES, _texts, code_digest, inner, parsed, segment, statement

QUIET = ("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__",
         "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__dataclass_fields__",
         "__dataclass_params__", "__match_args__", "__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__")


def class_parts(kind: type) -> Iterator[tuple[str, list[FunctionType], Any]]:
    """The names of a class in order, each with its functions, or with what else it is."""
    for name, item in sorted(vars(kind).items()):
        if name in QUIET:
            continue
        inside = [getattr(item, word, None) for word in ("__func__", "fget", "fset", "fdel", "func", "__wrapped__")]
        functions = [one for one in (item, *inside) if isinstance(one, FunctionType)]
        yield name, functions, item if type(item).__name__ not in ("member_descriptor", "getset_descriptor") else None


def class_source(kind: type) -> tuple[str, bool, list[CodeType]]:
    """The text of a class, whether it is the one that runs, and the code that its definition runs."""
    functions = [one for _, found, _ in class_parts(kind) for one in found]
    wanted = {function.__name__: code_digest(function.__code__) for function in functions}
    module = sys.modules.get(kind.__module__)
    file = next((one.__code__.co_filename for one in functions if one.__code__.co_filename != "<string>"
                 and one.__globals__.get("__name__") == kind.__module__), getattr(module, "__file__", None))
    if file is None:
        return "", False, []
    for text in _texts(file, vars(module) if module else {}):
        tree = parsed(text)
        for node in [] if tree is None else reversed([one for one in ast.walk(tree) if isinstance(one, ast.ClassDef)]):
            if node.name != kind.__name__:
                continue
            piece = segment(text, node)
            try:
                code = compile(ast.Module([statement(piece)], []), "<kept>", "exec", flags=_futures(text), dont_inherit=True)
            except SyntaxError:
                continue
            said = {one.co_name: code_digest(one) for one in inner(code) if one.co_name in wanted}
            if all(wanted[name] == digest for name, digest in said.items()):
                return piece, kind.__qualname__ == kind.__name__, [code]
    return "", False, []


def _futures(text: str) -> int:
    import __future__

    tree = parsed(text)
    names = [name.name for node in (tree.body if tree else []) if isinstance(node, ast.ImportFrom)
             and node.module == "__future__" for name in node.names]
    return sum(getattr(__future__, name).compiler_flag for name in dict.fromkeys(names)) & FUTURES


def before_running(source: str, flags: int) -> list[tuple[CodeType, str]]:
    """What the definition of a function runs: its decorators, as code and as text."""
    if not source:
        return []
    node = statement(source)
    return [(compile(ast.Expression(one), "<kept>", "eval", flags=flags & FUTURES, dont_inherit=True), ast.dump(one))
            for one in getattr(node, "decorator_list", [])]
