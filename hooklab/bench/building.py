"""Functions from kept code: compiled from their source, in namespaces that hold what they read and nothing else.

    nodes ──compile──▶ code objects ──checked against their hash──▶ functions ──▶ globals, closures, defaults filled in
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import linecache
from collections.abc import Callable
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

from ..errors import RecordError
from ..records import Unstored
from .nodes import Node
from .reads import file_digest
from .source import FUTURES, code_digest, compiled, statement

MISSING = object()


class Builder:
    """Builds what a code is made of; what is missing or not sure is collected in `problems`.

    Args:
        nodes: What it is made of.
        given: Values by name for what could not be kept.
        model: Gives the model to use for a name and a fingerprint.
        bench: For code that uses its bench.
        mark: The version of the code, for the names of its files.
        python: Under which it was kept.
    """

    def __init__(self, nodes: list[Node], given: dict[str, Any], model: Callable[[str, str], Any], bench: Any, mark: str,
                 python: str = "") -> None:
        self.nodes, self.given, self.model, self.bench, self.mark, self.python = nodes, given, model, bench, mark, python
        self.problems: list[str] = []
        self.unsure: list[str] = []
        self._made: dict[int, Any] = {}
        self._spaces: dict[str, dict[str, Any]] = {}

    def get(self, number: int) -> Any:
        """What a node stands for."""
        if number not in self._made:
            node = self.nodes[number]
            made = _BUILD[node.kind](self, node, number)
            self._made.setdefault(number, made)
        return self._made[number]

    def space(self, module: str) -> dict[str, Any]:
        """The global names of a module's functions."""
        if module not in self._spaces:
            self._spaces[module] = {"__name__": module or "restored", "__builtins__": builtins,
                                    "__package__": module.rpartition(".")[0]}
        return self._spaces[module]

    def file(self, source: str, number: int) -> str:
        """A name under which tracebacks find this source."""
        name = f"<hooklab {self.mark}.{number}>"
        text = f"if 1:\n{source}" if source[:1] in (" ", "\t") else source
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        return name

    def globals(self, node: Node) -> None:
        """Fill in the global names that a node reads."""
        space = self.space(node.about.get("module", ""))
        for label, number in node.refs.items():
            kind, _, name = label.partition(" ")
            if kind == "global":
                space[name] = self.get(number)
            elif kind == "import":
                self.get(number)

    def check(self, name: str, sure: bool) -> None:
        """Note that source is not known to be the code that ran."""
        if not sure:
            self.unsure.append(f"the source of {name} is not known to be the code that ran")


def _function(of: Builder, node: Node, number: int) -> Any:
    about = node.about
    name, free, source = about["name"], tuple(about["free"]), about["source"]
    if not source:
        of.problems.append(f"the source of {name} was not to be had")
        return None
    of.check(name, about["sure"])
    try:
        code_name = "<lambda>" if source.lstrip().startswith("lambda") else _code_name(source, name)
        file = of.file(f"({source}\n)" if code_name == "<lambda>" else source, number)
        code = compiled(source, code_name, free, about["flags"], file)
    except (SyntaxError, LookupError) as error:
        of.problems.append(f"the source of {name} cannot be read by this Python: {error}")
        return None
    if code_digest(code) != about.get("code", node.digest) and about["sure"]:
        of.unsure.append(f"{name} compiles to other code than it did under Python {of.python}")
    cells = tuple(CellType() for _ in code.co_freevars)
    function = FunctionType(code, of.space(about["module"]), name, None, cells or None)
    if node.kind == "function":
        of._made[number] = function  # what it reads may read it
    _filled(of, node, function, dict(zip(code.co_freevars, cells, strict=True)))
    return function


def _code_name(source: str, name: str) -> str:
    return str(getattr(statement(source), "name", name))


def _filled(of: Builder, node: Node, function: FunctionType, cells: dict[str, CellType]) -> None:
    """Give a function its defaults, closure and global names."""
    defaults: list[Any] = []
    named: dict[str, Any] = {}
    for label, number in node.refs.items():
        kind, _, name = label.partition(" ")
        if kind == "default" and name.isdigit():
            defaults.append(of.get(number))
        elif kind == "default":
            named[name] = of.get(number)
        elif kind == "free" and name in cells:
            cells[name].cell_contents = of.get(number)
    function.__defaults__, function.__kwdefaults__ = tuple(defaults) or None, named or None
    of.globals(node)


def _wrapped(of: Builder, node: Node, number: int) -> Any:
    """A function with the decorators around it."""
    function = _function(of, node, number)
    if function is None:
        return None
    for decorator in reversed(statement(node.about["source"]).decorator_list):
        root = decorator
        while isinstance(root, (ast.Call, ast.Attribute)):
            root = root.func if isinstance(root, ast.Call) else root.value
        held = of.space(node.about["module"]).get(getattr(root, "id", ""))
        if held is of.bench or getattr(held, "__name__", "").startswith("hooklab.bench"):
            continue
        try:
            flags = node.about["flags"] & FUTURES
            code = compile(ast.Expression(decorator), "<kept>", "eval", flags=flags, dont_inherit=True)
            function = eval(code, function.__globals__)(function)
        except Exception as error:
            of.problems.append(f"a decorator of {node.about['name']} fails: {type(error).__name__}: {error}")
            return None
    return function


def _class(of: Builder, node: Node, number: int) -> Any:
    about = node.about
    if not about["source"]:
        of.problems.append(f"the source of the class {about['name']} was not to be had")
        return None
    of.check(about["name"], about["sure"])
    of._made[number] = None  # a class that reads itself finds its name when it runs
    of.globals(node)
    for base in (number for label, number in node.refs.items() if label.startswith("base ")):
        of.get(base)
    space = of.space(about["module"])
    try:
        code = compile(ast.Module([statement(about["source"])], []), of.file(about["source"], number), "exec",
                       flags=about["flags"] & FUTURES, dont_inherit=True)
        exec(code, space)
    except Exception as error:
        of.problems.append(f"the class {about['name']} cannot be made: {type(error).__name__}: {error}")
        return None
    of._made[number] = space[about["name"]]
    return space[about["name"]]


def _value(of: Builder, node: Node, number: int) -> Any:
    name = node.about.get("name", "")
    if name in of.given:
        return of.given[name]
    if node.kind == "object" or isinstance(node.value, Unstored):
        what = node.about.get("type", "object")
        of.problems.append(f"{name} ({what}) was not kept as data: give it, given={{{name!r}: …}}")
        return None
    return node.value


def _library(of: Builder, node: Node, number: int) -> Any:
    module, name = node.about["module"], node.about.get("name", "")
    try:
        found: Any = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)
        return found
    except (ImportError, AttributeError) as error:
        of.problems.append(f"{module}{'.' * bool(name)}{name} is not to be had: {error}")
        return None


def _module(of: Builder, node: Node, number: int) -> Any:
    name = node.about["module"]
    if any(one.kind == "file" and one.about["module"] == name for one in of.nodes):
        return _library(of, node, number)
    made = of._made[number] = ModuleType(name)
    for label, inside in node.refs.items():
        setattr(made, label.removeprefix("attr "), of.get(inside))
    return made


def _file(of: Builder, node: Node, number: int) -> Any:
    name = node.about["module"]
    if file_digest(name) != node.digest:
        of.unsure.append(f"the file of the module {name}, which the code imports as a whole, is not as it was")
    return None


def _partial(of: Builder, node: Node, number: int) -> Any:
    refs = node.refs
    args = [of.get(refs[label]) for label in refs if label.startswith("arg ")]
    named = {label.removeprefix("keyword "): of.get(refs[label]) for label in refs if label.startswith("keyword ")}
    function = of.get(refs["function"])
    return None if function is None else functools.partial(function, *args, **named)


def _method(of: Builder, node: Node, number: int) -> Any:
    function, self = of.get(node.refs["function"]), of.get(node.refs["self"])
    return None if function is None or self is None else MethodType(function, self)


_BUILD: dict[str, Callable[[Builder, Node, int], Any]] = {
    "function": _function, "made": _wrapped, "class": _class, "value": _value, "object": _value, "library": _library,
    "module": _module, "file": _file, "partial": _partial, "method": _method,
    "model": lambda of, node, number: of.model(node.about["name"], node.about["fingerprint"]),
    "bench": lambda of, node, number: of.bench,
}


def built(builder: Builder, force: bool) -> Any:
    """The function. Raises RecordError with all that is missing or, unless forced, not sure."""
    function = builder.get(0)
    wrong = [*builder.problems, *([] if force else builder.unsure)]
    if wrong:
        word = " force=True restores it all the same." if not builder.problems else ""
        raise RecordError("this run cannot be restored: " + "; ".join(dict.fromkeys(wrong)) + "." + word)
    return function
