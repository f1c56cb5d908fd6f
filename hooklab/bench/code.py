"""The version of a function: a hash of its code and of all the user's code and constants that it reads.

    function ──walk──▶ nodes: functions, classes, values, modules, library names ──hash──▶ Code(version, nodes, text)

A version changes with the code of the function or of a helper however deep, with a default, a global or a closure variable
that it reads. It does not change with comments, docstrings, layout, line numbers, files or names of modules. Installed
packages count by name (their versions are part of a run's environment), models not at all (a run has their fingerprints).
What is reached through `getattr`, `eval` or the like is not seen. Bytecode differs between versions of Python, and so do
versions of code.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from ..errors import RecordError
from .kinds import add_function
from .nodes import Node, whole_text
from .walking import Walk


@dataclass(frozen=True)
class Code:
    """A function as it was at one moment.

    Attributes:
        version: Twelve characters; equal for equal code.
        nodes: What it is made of, the function itself first.
        by_kind: What it reads that could only be told by its kind, so that a change inside is not seen.
        models: Where it reads models -> their fingerprints.
        packages: Installed packages that it uses.
    """

    version: str
    nodes: tuple[Node, ...]
    by_kind: tuple[str, ...] = ()
    models: dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    python: str = field(default_factory=lambda: ".".join(platform.python_version_tuple()[:2]))

    @property
    def source(self) -> str:
        """The text of the function."""
        return str(self.nodes[0].about.get("source", ""))

    @property
    def text(self) -> str:
        """The text of everything: constants and helpers first, then the function."""
        return whole_text(self.nodes)


def code_of(function: Any, more: dict[str, Any] | None = None) -> Code:
    """The code of a function, and of `more` things that are handed to it.

    Raises:
        RecordError: it is nothing that has code.

    >>> scale = 2
    >>> first = code_of(lambda x: x * 2).version
    >>> first == code_of(lambda x:   x*2).version, first == code_of(lambda x: x * 3).version
    (True, False)
    """
    walk = Walk()
    if isinstance(function, FunctionType) and not hasattr(function, "__wrapped__"):
        add_function(walk, function, "function")  # by its code, even where it belongs to an installed package
    else:
        walk.ref(function, "function")
    if not walk.nodes or walk.nodes[0].kind == "object":
        raise RecordError(f"{function!r} is no function whose code could be kept")
    for name, value in sorted((more or {}).items()):
        walk.nodes[0].refs[f"tool {name}"] = walk.ref(value, name)
    return Code(version_of(walk.nodes), tuple(walk.nodes), tuple(walk.by_kind), walk.models, tuple(sorted(walk.packages)))


def version_of(nodes: list[Node]) -> str:
    parts = [[node.kind, node.digest, sorted(node.refs.items())] for node in nodes]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
