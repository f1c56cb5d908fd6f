"""What code is made of: a `Node` for each function, class, value and module that it reads; and all of it as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

WIDE = 120


@dataclass
class Node:
    """A thing that code is made of.

    Attributes:
        kind: `function`, `class`, `made` (a function that a decorator made), `value`, `module`, `file` (a module as a
            whole), `library`, `model`, `bench`, `partial`, `method`, `object` (told by its kind or state only).
        digest: What it is by itself.
        refs: What it reads: label -> number of the node.
        about: Source, names, flags: what restoring needs.
        value: What it holds, where it is a value or a model.
    """

    kind: str
    digest: str
    refs: dict[str, int] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    value: Any = None


def whole_text(nodes: Sequence[Node]) -> str:
    """The text of all own code: imports and constants first, then helpers, then the function."""
    named = {label.partition(" ")[2]: nodes[number] for node in nodes for label, number in node.refs.items()
             if label.startswith(("global ", "free "))}
    imports = sorted(filter(None, (_import(name, node) for name, node in named.items())))
    constants = [f"{name} = {_short(node)}" for name, node in sorted(named.items()) if node.kind == "value"]
    called = {id(node): name for name, node in named.items()}
    own = [node for node in reversed(nodes) if node.kind in ("function", "class", "made") and node.about.get("source")]
    texts = [_text(node, called.get(id(node), "function")) for node in own]
    return "\n\n\n".join(filter(None, ["\n".join(imports), "\n".join(constants), *texts])) + "\n"


def _text(node: Node, name: str) -> str:
    text = textwrap.dedent(node.about["source"]).rstrip("\n")
    return f"{name} = {text}" if text.startswith("lambda") else text


def _import(name: str, node: Node) -> str:
    if node.kind == "module":
        return _renamed(f"import {node.about['module']}", node.about["module"], name)
    if node.kind != "library":
        return ""
    module, inside = node.about["module"], node.about.get("name", "")
    if module == "builtins" or "." in inside:
        return ""
    return _renamed(f"from {module} import {inside}" if inside else f"import {module}", inside or module, name)


def _renamed(line: str, old: str, new: str) -> str:
    return line if old == new else f"{line} as {new}"


def _short(node: Node) -> str:
    """A value in a line."""
    shape = getattr(node.value, "shape", None)
    text = repr(node.value) if shape is None else f"...  # {type(node.value).__name__}{tuple(shape)} {node.digest}"
    return text if len(text) <= WIDE else f"...  # {text[:100].splitlines()[0]} … {node.digest}"
