"""What each kind of thing that code reads adds to its version: functions, classes, modules, values.

    Walk.ref(value) ──▶ add_function, add_class, … ──▶ a node, and what that reads in turn
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from .classes import before_running, class_parts, class_source
from .digest import Digest, fingerprint
from .nodes import Node
from .reads import is_library, reads
from .source import code_digest, source_of

if TYPE_CHECKING:
    from .walking import Walk


def add_function(walk: Walk, value: FunctionType, where: str) -> int:
    """A function of the user's, with what it reads."""
    made = hasattr(value, "__wrapped__") and is_library(value.__globals__.get("__name__"))
    if made:
        return add_made(walk, value, where)
    number, new = walk.new(id(value), Node("function", code_digest(value.__code__)))
    if new:
        walk.hold(value)
        node = walk.nodes[number]
        source, sure = source_of(value)
        node.about = {"name": value.__name__, "module": value.__globals__.get("__name__") or "", "source": source,
                      "sure": sure, "free": list(value.__code__.co_freevars), "flags": value.__code__.co_flags}
        _around(walk, value, node, where)
    return number


def _around(walk: Walk, value: FunctionType, node: Node, where: str) -> None:
    """Follow defaults, closure and names of a function."""
    for i, default in enumerate(value.__defaults__ or ()):
        node.refs[f"default {i}"] = walk.ref(default, f"{where} default {i}")
    for name, default in (value.__kwdefaults__ or {}).items():
        node.refs[f"default {name}"] = walk.ref(default, f"{where} default {name}")
    free = {chain[0]: chain for chain in reads(value.__code__).free}
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        try:
            held = cell.cell_contents
        except ValueError:  # nothing is in it yet
            continue
        walk.chain(held, free.get(name, (name,)), node.refs, f"free {name}", where)
    walk.names(value.__code__, value.__globals__, node.refs, where)


def add_made(walk: Walk, value: Any, where: str) -> int:
    """A function of the user's that a decorator of a library wraps."""
    number, new = walk.new(id(value), Node("made", ""))
    if new:
        walk.hold(value)
        node, inside = walk.nodes[number], inspect.unwrap(value)
        if not isinstance(inside, FunctionType) or is_library(inside.__globals__.get("__name__")):
            node.kind, node.digest = "library", f"{getattr(inside, '__module__', '')}:{getattr(inside, '__qualname__', '')}"
            node.about = {"module": getattr(inside, "__module__", ""), "name": getattr(inside, "__qualname__", "")}
            return number
        source, sure = source_of(inside)
        node.digest = code_digest(inside.__code__)
        node.about = {"name": inside.__name__, "module": inside.__globals__.get("__name__") or "", "source": source,
                      "sure": sure and not inside.__code__.co_freevars, "free": [], "flags": inside.__code__.co_flags,
                      "code": node.digest}
        _around(walk, inside, node, where)
        for code, text in before_running(source, inside.__code__.co_flags):
            node.digest = hashlib.sha256(f"{node.digest} {text}".encode()).hexdigest()
            walk.names(code, inside.__globals__, node.refs, where)
    return number


def add_class(walk: Walk, value: type, where: str) -> int:
    """A class of the user's, with what its methods read."""
    number, new = walk.new(id(value), Node("class", ""))
    if new:
        walk.hold(value)
        node = walk.nodes[number]
        module = value.__module__
        around = vars(sys.modules[module]) if module in sys.modules else {}
        space = next((one.__globals__ for _, found, _ in class_parts(value) for one in found
                      if one.__globals__.get("__name__") == module and one.__code__.co_filename != "<string>"), around)
        held = Digest()
        source, sure, outside = class_source(value)
        for name, functions, other in class_parts(value):
            held.say(name)
            for function in functions:
                held.say(code_digest(function.__code__))
                held.items((function.__defaults__, function.__kwdefaults__), f"{where}.{name}")
                walk.names(function.__code__, function.__globals__, node.refs, where)
            if not functions:
                held.add(other, f"{where}.{name}")
        for base in value.__bases__:
            node.refs[f"base {base.__qualname__}"] = walk.ref(base, base.__name__)
        for code in outside:
            walk.names(code, space, node.refs, where)
        node.digest, walk.by_kind = held.text(), [*walk.by_kind, *held.by_kind]
        node.about = {"name": value.__name__, "module": module, "source": source, "sure": sure, "free": [], "flags": 0}
    return number


def add_library(walk: Walk, value: Any, where: str) -> int:
    """What belongs to an installed package, by its name."""
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or "builtins"
    name = "" if isinstance(value, ModuleType) else getattr(value, "__qualname__", "")
    walk.packages.add(module.partition(".")[0])
    node = Node("library", f"{module}:{name}", about={"module": module, "name": name})
    return walk.new(("library", module, name), node)[0]


def add_module(walk: Walk, value: ModuleType, where: str) -> int:
    """A module of the user's: what is asked of it is followed by name."""
    return walk.new(("module", value.__name__), Node("module", "", about={"module": value.__name__}))[0]


def add_model(walk: Walk, value: Any, where: str) -> int:
    """A model, by its fingerprint."""
    number, new = walk.new(("model", id(value)), Node("model", "", about={"name": where}, value=value))
    if new:
        walk.models[where] = walk.nodes[number].about["fingerprint"] = fingerprint(value)
    return number


def add_partial(walk: Walk, value: functools.partial[Any], where: str) -> int:
    """A partial function."""
    number, new = walk.new(id(value), Node("partial", str(len(value.args))))
    if new:
        walk.hold(value)
        refs = walk.nodes[number].refs
        refs["function"] = walk.ref(value.func, where)
        refs.update({f"arg {i}": walk.ref(one, f"{where} {i}") for i, one in enumerate(value.args)})
        refs.update({f"keyword {name}": walk.ref(one, f"{where} {name}") for name, one in value.keywords.items()})
    return number


def add_method(walk: Walk, value: MethodType, where: str) -> int:
    """A bound method."""
    number, new = walk.new((id(value.__func__), id(value.__self__)), Node("method", ""))
    if new:
        refs = walk.nodes[number].refs
        refs["function"] = walk.ref(value.__func__, where)
        refs["self"] = walk.ref(value.__self__, f"{where} self")
    return number


def add_value(walk: Walk, value: Any, where: str) -> int:
    """Anything else, by its content or, where that cannot be seen, by its kind."""
    held = Digest()
    held.add(value, where)
    own = type(value).__module__ != "builtins" and not is_library(type(value).__module__)
    kind = "object" if held.by_kind or own else "value"
    about = {"name": where, "type": type(value).__qualname__}
    number, new = walk.new((kind, held.text()), Node(kind, held.text(), about=about, value=value))
    if new:
        walk.by_kind += held.by_kind
        if own:
            walk.nodes[number].refs["class"] = walk.ref(type(value), type(value).__name__)
    return number
