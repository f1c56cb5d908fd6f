"""The walk through all that code reads: each thing once, as a numbered node.

    function ──names, closure, defaults──▶ Walk.ref ──by kind──▶ nodes, packages, models
"""

from __future__ import annotations

import functools
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from . import kinds
from .digest import is_a, is_model
from .nodes import Node
from .reads import file_digest, is_library, is_own, reads

UNSEEN = object()
NAMED = ("ufunc", "builtin_function_or_method", "OpOverload", "OpOverloadPacket", "_ArrayFunctionDispatcher")
"""Kinds of callables of libraries that are no functions to Python."""


class Walk:
    """Follows what code reads, each thing once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.by_kind: list[str] = []
        self.models: dict[str, str] = {}
        self.packages: set[str] = set()
        self._known: dict[Any, int] = {}
        self._kept: list[Any] = []

    def ref(self, value: Any, where: str) -> int:
        """The number of the node of a value."""
        value = value.function if is_a(value, "hooklab.bench.experiment", "Experiment") else value
        value = value.function if is_a(value, "hooklab.bench.needs", "Prepared") else value
        for fits, add in KINDS:
            if fits(value):
                return add(self, value, where)
        raise AssertionError

    def hold(self, value: Any) -> None:
        """Keep a value alive, so that its id is not used twice."""
        self._kept.append(value)

    def new(self, key: Any, node: Node) -> tuple[int, bool]:
        """The number under a key, and whether the node is new."""
        if key in self._known:
            return self._known[key], False
        self._known[key] = len(self.nodes)
        self.nodes.append(node)
        return self._known[key], True

    def names(self, code: Any, space: dict[str, Any], refs: dict[str, int], where: str) -> None:
        """Follow the global names and the imports of a code object."""
        found = reads(code)
        for chain in found.names:
            value = space.get(chain[0], UNSEEN)
            if value is not UNSEEN:
                self.chain(value, chain, refs, f"global {chain[0]}", where)
        for name, level, _ in found.imports:
            package = (space.get("__package__") or str(space.get("__name__", "")).rpartition(".")[0]) if level else ""
            target = f"{package}.{name}".strip(".") if level else name
            self.imported(target, refs)

    def chain(self, value: Any, chain: tuple[str, ...], refs: dict[str, int], label: str, where: str) -> None:
        """Follow a name and, through the user's own modules, the attributes that are asked of it."""
        number = refs[label] = self.ref(value, chain[0])
        if not is_own(value):
            return
        if len(chain) == 1:
            self.imported(value.__name__, refs)
            return
        inside = getattr(value, chain[1], UNSEEN)
        if inside is not UNSEEN:
            self.chain(inside, chain[1:], self.nodes[number].refs, f"attr {chain[1]}", where)

    def imported(self, name: str, refs: dict[str, int]) -> None:
        """A module that is used as a whole: a library by its name, one of the user's by what its file says."""
        if is_library(name):
            self.packages.add(name.partition(".")[0])
            refs[f"import {name}"] = self.new(("library", name, ""), Node("library", f"{name}:", about={"module": name}))[0]
            return
        text = file_digest(name)
        if text is not None:
            refs[f"import {name}"] = self.new(("file", name), Node("file", text, about={"module": name}))[0]


def _is_library_thing(value: Any) -> bool:
    if isinstance(value, FunctionType):
        return is_library(value.__globals__.get("__name__")) and not hasattr(value, "__wrapped__")
    if isinstance(value, (type, BuiltinFunctionType)):
        return value.__module__ is None or is_library(value.__module__)
    if isinstance(value, ModuleType):
        return is_library(value.__name__)
    return type(value).__name__ in NAMED


KINDS: tuple[tuple[Any, Any], ...] = (
    (lambda v: is_a(v, "hooklab.bench.workbench", "Bench"), lambda walk, v, where: walk.new("bench", Node("bench", ""))[0]),
    (is_model, kinds.add_model),
    (_is_library_thing, kinds.add_library),
    (lambda v: isinstance(v, ModuleType), kinds.add_module),
    (lambda v: isinstance(v, FunctionType), kinds.add_function),
    (lambda v: isinstance(v, type), kinds.add_class),
    (lambda v: isinstance(v, MethodType), kinds.add_method),
    (lambda v: isinstance(v, functools.partial), kinds.add_partial),
    (lambda v: callable(v) and isinstance(getattr(v, "__wrapped__", None), FunctionType), kinds.add_made),
    (lambda v: True, kinds.add_value),
)
